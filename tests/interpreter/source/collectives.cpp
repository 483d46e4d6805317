// Barriers, shuffles, and products on tensor cores.
#include "collectives.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "run.h"

namespace ptx {
namespace {

enum class Shuffle { UP, DOWN, BFLY, IDX };

// "shfl.sync.mode.b32 d|p, a, b, c, members": the lane that each one reads by mode and b, within segments by c.
template <Shuffle mode> void shuffle(Warp& warp, const Instruction& instruction, u32 active)
{
    const u32* places = instruction.places;
    const u32 *b = warp.at<u32>(places[3]), *c = warp.at<u32>(places[4]);
    u32 values[LANES];
    std::copy_n(warp.at<u32>(places[2]), LANES, values);
    for (u32 left = active; left != 0; left &= left - 1) {
        const int lane = std::countr_zero(left);
        const int by = b[lane] & 31, clamp = c[lane] & 31, segment = c[lane] >> 8 & 31;
        const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
        int from = mode == Shuffle::UP     ? lane - by
                   : mode == Shuffle::DOWN ? lane + by
                   : mode == Shuffle::BFLY ? lane ^ by
                                           : first | (by & ~segment);
        const bool is_inside = mode == Shuffle::UP ? from >= last : from <= last;
        if (!is_inside) from = lane;
        if (!(active >> from & 1)) fail("a lane reads from one that takes no part");
        warp.at<u32>(places[0])[lane] = values[from];
        u32& predicate = *warp.at<u32>(places[1]);
        predicate = (predicate & ~(1u << lane)) | u32(is_inside) << lane;
    }
}

void nothing(Warp&, const Instruction&, u32) {}

// "mov.b32 {a, b}, c", and of 64 bits.
template <class Half, class Whole> void unpack(Warp& warp, const Instruction& instruction, u32 active)
{
    for (u32 left = active; left != 0; left &= left - 1) {
        const int lane = std::countr_zero(left);
        const Whole whole = warp.at<Whole>(instruction.places[2])[lane];
        warp.at<Half>(instruction.places[0])[lane] = Half(whole);
        warp.at<Half>(instruction.places[1])[lane] = Half(whole >> 8 * sizeof(Half));
    }
}

// D [16, 8] = A [16, k] B [k, 8] + C. A lane holds rows lane / 4 and 8 more of A, C and D, column lane / 4 of B, and
// neighbouring pairs: columns 2 (lane % 4) and, of a wide A, 8 more; rows 2 (lane % 4) and 8 more of B.
template <int DEPTH, float (*WIDEN)(u16)> void multiply(Warp& warp, const Instruction& instruction, u32)
{
    constexpr int A_WORDS = DEPTH / 4, B_WORDS = DEPTH / 8;
    const u32 *d = instruction.places, *a = d + 4, *b = a + A_WORDS, *c = b + B_WORDS;
    float left[16][DEPTH], right[DEPTH][8];
    for (int lane = 0; lane < LANES; ++lane) {
        const int row = lane / 4, column = lane % 4 * 2;
        for (int word = 0; word < A_WORDS; ++word) {
            const u32 pair = warp.at<u32>(a[word])[lane];
            float* to = &left[row + word % 2 * 8][column + word / 2 * 8];
            to[0] = WIDEN(pair), to[1] = WIDEN(pair >> 16);
        }
        for (int word = 0; word < B_WORDS; ++word) {
            const u32 pair = warp.at<u32>(b[word])[lane];
            right[column + word * 8][row] = WIDEN(pair), right[column + word * 8 + 1][row] = WIDEN(pair >> 16);
        }
    }
    float sums[16][8] = {};
    for (int i = 0; i < 16; ++i)
        for (int k = 0; k < DEPTH; ++k)
            for (int j = 0; j < 8; ++j) sums[i][j] += left[i][k] * right[k][j];
    for (int lane = 0; lane < LANES; ++lane)
        for (int word = 0; word < 4; ++word)
            warp.at<float>(d[word])[lane] =
                warp.at<float>(c[word])[lane] + sums[lane / 4 + word / 2 * 8][lane % 4 * 2 + word % 2];
}

template <int DEPTH, float (*WIDEN)(u16)> Operation make_multiply()
{
    return {multiply<DEPTH, WIDEN>, Flow::ALIGNED, std::vector<Width>(8 + DEPTH / 4 + DEPTH / 8, W32)};
}

}  // namespace

std::unordered_map<std::string, Operation> list_collectives()
{
    const std::vector<Width> shuffled{W32, PREDICATE, W32, W32, W32, W32};
    return {
        {"unpack.b32", {unpack<u16, u32>, Flow::NEXT, {W16, W16, W32}}},
        {"unpack.b64", {unpack<u32, u64>, Flow::NEXT, {W32, W32, W64}}},
        {"ret", {nothing, Flow::RETURN, {}}},
        {"bar.sync", {nothing, Flow::BLOCK_BARRIER, {W32}}},
        {"bar.warp.sync", {nothing, Flow::WARP_BARRIER, {W32}}},
        {"shfl.sync.up.b32", {shuffle<Shuffle::UP>, Flow::COLLECTIVE, shuffled}},
        {"shfl.sync.down.b32", {shuffle<Shuffle::DOWN>, Flow::COLLECTIVE, shuffled}},
        {"shfl.sync.bfly.b32", {shuffle<Shuffle::BFLY>, Flow::COLLECTIVE, shuffled}},
        {"shfl.sync.idx.b32", {shuffle<Shuffle::IDX>, Flow::COLLECTIVE, shuffled}},
        {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", make_multiply<8, widen_half>()},
        {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", make_multiply<16, widen_half>()},
        {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", make_multiply<16, widen_bfloat>()},
    };
}

float widen_half(u16 bits) { return float(std::bit_cast<_Float16>(bits)); }

u16 narrow_to_half(float value) { return std::isnan(value) ? 0x7fff : std::bit_cast<u16>(_Float16(value)); }

float widen_bfloat(u16 bits) { return std::bit_cast<float>(u32(bits) << 16); }

u16 narrow_to_bfloat(float value)  // to the nearest, of two equally near ones to the even one
{
    const u32 bits = std::bit_cast<u32>(value);
    return std::isnan(value) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

}  // namespace ptx

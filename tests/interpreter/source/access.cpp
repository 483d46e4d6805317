// Instructions that reach memory.
#include <bit>
#include <cstring>
#include <unordered_map>

#include "run.h"

namespace ptx {
namespace {

template <class Visit> void visit_lanes(u32 active, Visit visit)
{
    for (; active != 0; active &= active - 1) visit(std::countr_zero(active));
}

// The value of the instruction's type in 64 bits.
u64 extend(const Instruction& instruction, u64 value)
{
    const int unused = 64 - 8 * instruction.element_bytes;
    return instruction.is_signed ? u64(s64(value << unused) >> unused) : value;
}

void load(Warp& warp, const Instruction& instruction, u32 active)
{
    const u32 bytes = instruction.element_bytes;
    visit_lanes(active, [&](int lane) {
        const u8* from = warp.access(instruction, lane, Use::READ);
        for (int e = 0; e < instruction.element_count; ++e) {
            u64 value = 0;
            std::memcpy(&value, from + e * bytes, bytes);
            warp.write(instruction.places[e], instruction.widths[e], lane, extend(instruction, value));
        }
    });
}

void store(Warp& warp, const Instruction& instruction, u32 active)
{
    const u32 bytes = instruction.element_bytes;
    visit_lanes(active, [&](int lane) {
        u8* to = warp.access(instruction, lane, Use::WRITE);
        for (int e = 0; e < instruction.element_count; ++e) {
            const u64 value = warp.read(instruction.places[e], instruction.widths[e], lane);
            std::memcpy(to + e * bytes, &value, bytes);
        }
    });
}

// Makes an atomic that puts F of the old value and the operand into memory, and the old value into the result.
template <class T, class F> AccessOperation atomic(F)
{
    return {[](Warp& warp, const Instruction& instruction, u32 active) {
                visit_lanes(active, [&](int lane) {
                    T* place = reinterpret_cast<T*>(warp.access(instruction, lane, Use::ATOMIC));
                    const T old = *place;
                    *place = F{}(old, warp.at<T>(instruction.places[1])[lane]);
                    warp.at<T>(instruction.places[0])[lane] = old;
                });
            },
            2};
}

// Lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i, 8 x 8 elements of 16 bits; lane l gets of each
// matrix elements 2 (l % 4) and the next of row l / 4, or, transposed, of column l / 4.
template <int COUNT, bool IS_TRANSPOSED> void load_matrices(Warp& warp, const Instruction& instruction, u32)
{
    u16 rows[COUNT * 8][8];
    for (int row = 0; row < COUNT * 8; ++row) std::memcpy(rows[row], warp.access(instruction, row, Use::READ), 16);
    for (int matrix = 0; matrix < COUNT; ++matrix)
        for (int lane = 0; lane < LANES; ++lane) {
            const u16(*own)[8] = rows + matrix * 8;
            const int i = lane / 4, j = lane % 4 * 2;
            const u16 first = IS_TRANSPOSED ? own[j][i] : own[i][j];
            const u16 second = IS_TRANSPOSED ? own[j + 1][i] : own[i][j + 1];
            warp.at<u32>(instruction.places[matrix])[lane] = first | u32(second) << 16;
        }
}

}  // namespace

AccessOperation find_access(const std::string& name)
{
    static const std::unordered_map<std::string, AccessOperation> table{
        {"ld", {load, 0}},
        {"st", {store, 0}},
        {"atom.add.u32", atomic<u32>([](auto a, auto b) { return a + b; })},
        {"atom.add.s32", atomic<u32>([](auto a, auto b) { return a + b; })},
        {"atom.add.u64", atomic<u64>([](auto a, auto b) { return a + b; })},
        {"atom.add.f32", atomic<float>([](auto a, auto b) { return a + b; })},
        {"atom.or.b32", atomic<u32>([](auto a, auto b) { return a | b; })},
        {"atom.min.s32", atomic<s32>([](auto a, auto b) { return a < b ? a : b; })},
        {"atom.max.s32", atomic<s32>([](auto a, auto b) { return a > b ? a : b; })},
        {"atom.inc.u32", atomic<u32>([](auto a, auto b) { return a >= b ? 0 : a + 1; })},
        {"ldmatrix.sync.aligned.m8n8.x4.b16", {load_matrices<4, false>, 4}},
        {"ldmatrix.sync.aligned.m8n8.x4.trans.b16", {load_matrices<4, true>, 4}},
    };
    const auto found = table.find(name);
    return found == table.end() ? AccessOperation{nullptr, 0} : found->second;
}

void load_parameter(Warp& warp, const Instruction& instruction, u32 active)
{
    const u64 value = extend(instruction, warp.block->arguments[instruction.offset]);
    visit_lanes(active, [&](int lane) { warp.write(instruction.places[0], instruction.widths[0], lane, value); });
}

u64 Warp::read(u32 place, Width width, int lane)
{
    return width == W64 ? at<u64>(place)[lane] : width == W32 ? at<u32>(place)[lane] : at<u16>(place)[lane];
}

void Warp::write(u32 place, Width width, int lane, u64 value)
{
    if (width == W64) at<u64>(place)[lane] = value;
    else if (width == W32) at<u32>(place)[lane] = u32(value);
    else at<u16>(place)[lane] = u16(value);
}

u8* Warp::access(const Instruction& instruction, int lane, Use use)
{
    u64 address = instruction.offset;
    if (instruction.address != NONE) address += read(instruction.address, instruction.address_width, lane);
    if (instruction.address != NONE && instruction.address_width == W32) address = u32(address);
    Block& own = *block;
    const u32 bytes = instruction.element_bytes * instruction.element_count;
    const bool is_window = instruction.space == Space::GENERIC && address >= SHARED_WINDOW;
    const bool is_shared = instruction.space == Space::SHARED || is_window;
    if (is_shared) address += own.shared_base - (is_window ? SHARED_WINDOW : 0);
    const Moment moment{own.number + 1, u16(index), u16(index * LANES + lane), own.epoch, epoch};
    return (is_shared ? own.shared : own.global).access(address, bytes, use, moment, is_shared);
}

}  // namespace ptx

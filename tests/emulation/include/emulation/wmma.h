// Matrix fragments of a warp: half and bf16 factors, float (or, for half, half) sums, in CUDA's three shapes.
//
// Element e of a tile lies in lane e / num_elements, x[e % num_elements]. On hardware the place is another and not told:
// a kernel may only treat all elements of a fragment alike. Sums are taken in float, term by term; the hardware's
// order and rounding inside a tile are its own.
#pragma once

#include "bfloat16.h"
#include "half.h"
#include "warp.h"

namespace nvcuda {
namespace wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K> struct Tile;
template <int M, int N, int K> struct Tile<matrix_a, M, N, K> { enum { ROWS = M, COLUMNS = K }; };
template <int M, int N, int K> struct Tile<matrix_b, M, N, K> { enum { ROWS = K, COLUMNS = N }; };
template <int M, int N, int K> struct Tile<accumulator, M, N, K> { enum { ROWS = M, COLUMNS = N }; };

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static_assert(K == 16 && M * N == 256 && (M == 8 || M == 16 || M == 32), "m16n16k16, m32n8k16 or m8n32k16");
    using Shape = Tile<Use, M, N, K>;
    enum { num_elements = Shape::ROWS * Shape::COLUMNS / 32 };
    T x[num_elements];
};

template <class F, class Visit> void visit_elements(F &f, Visit visit) {
    for (int i = 0; i < F::num_elements; ++i) {
        int element = emulation::get_lane() * F::num_elements + i;
        visit(f.x[i], (size_t)(element / F::Shape::COLUMNS), (size_t)(element % F::Shape::COLUMNS));
    }
}

template <class Use, int M, int N, int K, class T, class L, class V>
void fill_fragment(fragment<Use, M, N, K, T, L> &f, const V &value) {
    for (T &x : f.x) x = (T)value;
}
template <class Use, int M, int N, int K, class T>
void load_matrix_sync(fragment<Use, M, N, K, T, row_major> &f, const T *from, unsigned stride) {
    visit_elements(f, [&](T &x, size_t row, size_t column) { x = from[row * stride + column]; });
}
template <class Use, int M, int N, int K, class T>
void load_matrix_sync(fragment<Use, M, N, K, T, col_major> &f, const T *from, unsigned stride) {
    visit_elements(f, [&](T &x, size_t row, size_t column) { x = from[column * stride + row]; });
}
template <int M, int N, int K, class T>
void load_matrix_sync(fragment<accumulator, M, N, K, T> &f, const T *from, unsigned stride, layout_t layout) {
    visit_elements(f, [&](T &x, size_t row, size_t column) {
        x = layout == mem_row_major ? from[row * stride + column] : from[column * stride + row];
    });
}
template <int M, int N, int K, class T>
void store_matrix_sync(T *to, const fragment<accumulator, M, N, K, T> &f, unsigned stride, layout_t layout) {
    visit_elements(f, [&](const T &x, size_t row, size_t column) {
        (layout == mem_row_major ? to[row * stride + column] : to[column * stride + row]) = x;
    });
}

template <int M, int N, int K, class F, class LA, class LB, class T>
void mma_sync(fragment<accumulator, M, N, K, T> &d, const fragment<matrix_a, M, N, K, F, LA> &a,
              const fragment<matrix_b, M, N, K, F, LB> &b, const fragment<accumulator, M, N, K, T> &c) {
    constexpr int LEFT = M * K / 32, RIGHT = K * N / 32, SUMS = 8, PIECE = RIGHT < SUMS ? RIGHT : SUMS;
    struct Factors {
        F left[LEFT], right[RIGHT];
    } mine;
    static_assert(sizeof(Factors) <= emulation::LANE_BYTES);
    memcpy((void *)mine.left, a.x, sizeof(a.x));
    memcpy((void *)mine.right, b.x, sizeof(b.x));
    auto lanes = emulation::meet_warp(emulation::Collective::MATRIX, &mine, sizeof(mine));
    // A lane's eight sums lie in one row of the tile, whatever its shape.
    int first = emulation::get_lane() * SUMS, row = first / N, column = first % N;
    float sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = (float)c.x[i];
    for (int k = 0; k < K; ++k) {
        int place = row * K + k;
        float left = (float)reinterpret_cast<const Factors *>(lanes[place / LEFT])->left[place % LEFT];
        F right[SUMS];
        for (int i = 0; i < SUMS; i += PIECE) {
            place = k * N + column + i;
            auto from = reinterpret_cast<const Factors *>(lanes[place / RIGHT])->right + place % RIGHT;
            memcpy((void *)(right + i), from, PIECE * sizeof(F));
        }
        for (int i = 0; i < SUMS; ++i) sums[i] += left * (float)right[i];
    }
    for (int i = 0; i < SUMS; ++i) d.x[i] = (T)sums[i];
}

}  // namespace wmma
}  // namespace nvcuda

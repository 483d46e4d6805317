// rbfrm (eq. 3-5): each K x K patch of the features becomes the mean of the reference's patches, weighted by the
// softmax of their cosines. With patches as rows of L = c K K elements it is two matrix products:
//
//   rbfrm_prepare  cuts the reference [1, c, h', w'] into patches [M, L], as they are and at length 1; once a reference
//   rbfrm_weights  exp(cosine) of the n N patches of the features, read where they lie, and M of the reference
//   rbfrm_combine  only where the sum over L was cut into parts: adds the parts, then takes exp
//   rbfrm_rebuild  weights x patches over the sum of the weights, put back in place
//
// The cosine is bounded by 1, so that exp needs no running maximum: it lies in [0.36, 2.72], where 16-bit types have
// their full relative precision.
//
// Why exp(cosine) goes to memory: a block that kept its rows to itself would need L sums for each, 256 KB for 64 rows
// of level 3 (L = 1024), more than a block has; and one image has 16 such blocks there, for the 132 multiprocessors
// of an H200. As a matrix it is 2 MB an image at that level and less elsewhere, so it stays in L2, and both products
// have blocks for the whole GPU. docs/kernels.md has the arithmetic.
//
// NDP_RT_PATCH is K, 2 or 4. NDP_RT_TILE is the side of a block's tile: 64, or 128 for 16-bit types where there are
// tiles enough. L and M are padded with zeros to a multiple of 64 (the pitches), so that every matrix is read in
// whole vectors of 16 bytes; a row or column past the end reads the last one instead, and its result is dropped.

#include "rbfrm_tile.cuh"
#include "shared/warp.cuh"

namespace {

constexpr int PREPARE_THREADS = 256;
constexpr float NORM_EPS = 1e-6f;  // as in definition.py

__device__ __forceinline__ float invert_norm(float squares) { return 1.0f / fmaxf(sqrtf(squares), NORM_EPS); }

// __expf is within 3 units of the last place for |x| <= 1 (CUDA programming guide): 4e-7.
__device__ __forceinline__ float weigh(float cosine) { return __expf(cosine); }

}  // namespace

// A block for each patch of the reference; thread t takes elements t, t + 256 and so on, padding included.
extern "C" __global__ void __launch_bounds__(PREPARE_THREADS)
rbfrm_prepare(const element* __restrict__ reference, element* __restrict__ patches, element* __restrict__ unit_patches,
              int channels, int height, int width, int pitch)
{
    __shared__ float parts[PREPARE_THREADS / 32];
    const Geometry shape{channels, height, width};
    const element* patch = reference + shape.find_patch(blockIdx.x);
    const size_t row = (size_t)blockIdx.x * pitch;
    const int length = shape.count_patch_rows() * PATCH, thread = threadIdx.x;
    float squares = 0.0f;
    for (int l = thread; l < length; l += PREPARE_THREADS) {
        const float value = to_float(patch[shape.find_patch_row(l / PATCH) + l % PATCH]);
        squares += value * value;
    }
    squares = warp_sum(squares);
    if (thread % 32 == 0) parts[thread / 32] = squares;
    __syncthreads();
    squares = 0.0f;
    for (float part : parts) squares += part;
    const float factor = invert_norm(squares);
    for (int l = thread; l < pitch; l += PREPARE_THREADS) {
        const element value = l < length ? patch[shape.find_patch_row(l / PATCH) + l % PATCH] : to_element(0.0f);
        patches[row + l] = value;
        unit_patches[row + l] = to_element(to_float(value) * factor);
    }
}

// A block's tile is TILE patches of the features x TILE of the reference. blockIdx.x counts tiles, along the reference
// first, so that blocks which run together read the same features; blockIdx.y counts parts of the sum over L. One part
// writes weights [rows, weights_pitch]; several write dots [parts, rows, weights_pitch] and squares [parts, rows].
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
rbfrm_weights(const element* __restrict__ features, const element* __restrict__ unit_patches,
              element* __restrict__ weights, float* __restrict__ dots, float* __restrict__ squares, int row_count,
              int reference_count, int channels, int height, int width, int pitch, int weights_pitch, int part_steps)
{
    __shared__ __align__(128) SharedMemory shared;
    const int across = (reference_count + TILE - 1) / TILE;
    const int first_row = blockIdx.x / across * TILE, first_column = blockIdx.x % across * TILE;
    const int first_step = blockIdx.y * part_steps, step_count = min(part_steps, pitch / STEP - first_step);
    FeatureRows left(features, {channels, height, width}, first_row, row_count, first_step);
    MatrixRows<Total::NONE> right(unit_patches, first_column, reference_count, pitch, first_step);
    Quarter<Second::COLUMNS> quarter;
    multiply(left, right, step_count, quarter, shared);

    const bool is_whole = gridDim.y == 1;
    const size_t part_row = (size_t)blockIdx.y * row_count;
#pragma unroll
    for (int r = 0; r < ROW_GROUPS; ++r) {
        const float total = left.reduce(r);
        const int tile_row = find_own_row(r), row = first_row + tile_row;
        if (find_own_unit() != 0) continue;
        shared.factors[tile_row] = invert_norm(total);
        if (!is_whole && first_column == 0 && row < row_count) squares[part_row + row] = total;
    }
    __syncthreads();
    visit_runs<VECTOR>(quarter, shared, [&](int tile_row, int tile_column, float* values) {
        const int row = first_row + tile_row, column = first_column + tile_column;
        if (row >= row_count || column >= weights_pitch) return;
        if (is_whole) {
            const float factor = shared.factors[tile_row];
#pragma unroll
            for (int e = 0; e < VECTOR; ++e)
                values[e] = column + e < reference_count ? weigh(values[e] * factor) : 0.0f;
            *reinterpret_cast<vector*>(weights + (size_t)row * weights_pitch + column) = pack<vector>(values);
        } else {
            float4* to = reinterpret_cast<float4*>(dots + (part_row + row) * weights_pitch + column);
#pragma unroll
            for (int e = 0; e < VECTOR / 4; ++e) to[e] = reinterpret_cast<const float4*>(values)[e];
        }
    });
}

// A thread for each weight, padding included.
extern "C" __global__ void __launch_bounds__(THREADS)
rbfrm_combine(const float* __restrict__ dots, const float* __restrict__ squares, element* __restrict__ weights,
              int row_count, int reference_count, int weights_pitch, int part_count)
{
    const size_t index = (size_t)blockIdx.x * THREADS + threadIdx.x, count = (size_t)row_count * weights_pitch;
    if (index >= count) return;
    const size_t row = index / weights_pitch;
    const int column = index % weights_pitch;
    float dot = 0.0f, total = 0.0f;
    for (int part = 0; part < part_count; ++part) {
        dot += dots[part * count + index];
        total += squares[(size_t)part * row_count + row];
    }
    weights[index] = to_element(column < reference_count ? weigh(dot * invert_norm(total)) : 0.0f);
}

// A block's tile is TILE patches of the features x TILE elements of a patch; blockIdx.x counts tiles, along the patch
// first. A row's weights are added up as they were rounded, so that its shares add up to 1.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
rbfrm_rebuild(const element* __restrict__ weights, const element* __restrict__ patches, element* __restrict__ out,
              int row_count, int reference_count, int channels, int height, int width, int pitch, int weights_pitch)
{
    __shared__ __align__(128) SharedMemory shared;
    const Geometry shape{channels, height, width};
    const int across = (shape.count_patch_rows() * PATCH + TILE - 1) / TILE;
    const int first_row = blockIdx.x / across * TILE, first_column = blockIdx.x % across * TILE;
    MatrixRows<Total::SUM> left(weights, first_row, row_count, weights_pitch, 0);
    MatrixColumns right(patches, first_column, reference_count, pitch);
    Quarter<Second::ROWS> quarter;
    multiply(left, right, weights_pitch / STEP, quarter, shared);

#pragma unroll
    for (int r = 0; r < ROW_GROUPS; ++r) {
        const float total = left.reduce(r);
        const int tile_row = find_own_row(r);
        if (find_own_unit() != 0) continue;
        shared.factors[tile_row] = 1.0f / total;
        shared.patches[tile_row] = shape.find_patch(first_row + tile_row);
    }
    __syncthreads();
    visit_runs<PATCH>(quarter, shared, [&](int tile_row, int tile_column, float* values) {
        const int patch_row_index = (first_column + tile_column) / PATCH;
        if (first_row + tile_row >= row_count || patch_row_index >= shape.count_patch_rows()) return;
        const float factor = shared.factors[tile_row];
#pragma unroll
        for (int e = 0; e < PATCH; ++e) values[e] *= factor;
        element* to = out + shared.patches[tile_row] + shape.find_patch_row(patch_row_index);
        *reinterpret_cast<patch_row*>(to) = pack<patch_row>(values);
    });
}

// smooth: the mean, then the median, of SIZE x SIZE pixels, both with replicated borders; and the largest value of every
// tile. SIZE is 3 or 5.
// smooth_levels: the same on the weighted sum of three level maps, which then never goes to memory.
//
// smooth moves 8 bytes a pixel, smooth_levels 9.25; for SIZE 5 both take some 8 additions and 108 minima and maxima a
// pixel, so that arithmetic bounds them on every GPU. A block owns a tile of 32 x 16 pixels, and takes a margin of
// 2 RADIUS pixels around it: RADIUS for the median, and as many for the means in it. 256 threads; a thread owns two
// pixels, one below the other, whose medians share most of their work for SIZE 5. 256 x 256 pixels are 128 tiles: one
// for each SM of a large GPU.
//
// Means outside the image are those at its border, not means of a replicated image: the median's window is clamped
// first, then the mean's.

#include "fuse_maps/fuse_maps.cuh"
#include "median.cuh"
#include "shared/numbers.cuh"
#include "shared/warp.cuh"

#ifndef NDP_RT_SMOOTH_SIZE
#error "NDP_RT_SMOOTH_SIZE is not defined: 3 or 5"
#endif
#define SIZE NDP_RT_SMOOTH_SIZE
#define RADIUS (SIZE / 2)
#define TILE_W 32
#define TILE_H 16
#define THREADS 256
#define MEANS_W (TILE_W + 2 * RADIUS)
#define MEANS_H (TILE_H + 2 * RADIUS)
#define VALUES_W (MEANS_W + 2 * RADIUS)
#define VALUES_H (MEANS_H + 2 * RADIUS)

__device__ __forceinline__ int clamp(int place, int count) { return min(max(place, 0), count - 1); }

struct OneMap {
    const float* map;
    __device__ __forceinline__ OneMap(const float* maps, long long offset) : map(maps + offset) {}
    __device__ __forceinline__ float get(int y, int x, int, int w) const { return map[y * w + x]; }
};

struct ThreeLevels {
    const float *am1, *am2, *am3;
    __device__ __forceinline__ ThreeLevels(const float* am1, const float* am2, const float* am3, long long offset)
        : am1(am1 + offset), am2(am2 + offset / 4), am3(am3 + offset / 16) {}
    __device__ __forceinline__ float get(int y, int x, int h, int w) const {
        return fuse_levels(am1[y * w + x], am2, am3, y, x, h, w);
    }
};

template <class Source>
__device__ __forceinline__ void smooth_tile(Source source, float* out, float* tile_maximum, int h, int w) {
    __shared__ float values[VALUES_H][VALUES_W];
    __shared__ float row_sums[VALUES_H][MEANS_W];
    __shared__ float means[MEANS_H][MEANS_W];
    const int tile_x = blockIdx.x * TILE_W, tile_y = blockIdx.y * TILE_H, thread = threadIdx.x;
    const int first_x = tile_x - 2 * RADIUS, first_y = tile_y - 2 * RADIUS;  // where `values` begin

    for (int i = thread; i < VALUES_H * VALUES_W; i += THREADS) {
        const int row = i / VALUES_W, column = i % VALUES_W;
        values[row][column] = source.get(clamp(first_y + row, h), clamp(first_x + column, w), h, w);
    }
    __syncthreads();
    for (int i = thread; i < VALUES_H * MEANS_W; i += THREADS) {
        const int row = i / MEANS_W, column = i % MEANS_W;
        const float* centre = &values[row][clamp(tile_x - RADIUS + column, w) - first_x];
        float sum = centre[-RADIUS];
#pragma unroll
        for (int d = 1 - RADIUS; d <= RADIUS; ++d) sum += centre[d];
        row_sums[row][column] = sum;
    }
    __syncthreads();
    for (int i = thread; i < MEANS_H * MEANS_W; i += THREADS) {
        const int row = clamp(tile_y - RADIUS + i / MEANS_W, h) - first_y, column = i % MEANS_W;
        float sum = 0.0f;
#pragma unroll
        for (int d = -RADIUS; d <= RADIUS; ++d) sum += row_sums[row + d][column];
        means[i / MEANS_W][column] = sum * (1.0f / (SIZE * SIZE));
    }
    __syncthreads();

    const int column = thread % TILE_W, row = thread / TILE_W * 2;
    float upper[SIZE], shared[SIZE * (SIZE - 1)], lower[SIZE], medians[2];
#pragma unroll
    for (int d = 0; d < SIZE; ++d) {
        upper[d] = means[row][column + d];
        lower[d] = means[row + SIZE][column + d];
#pragma unroll
        for (int r = 0; r < SIZE - 1; ++r) shared[r * SIZE + d] = means[row + 1 + r][column + d];
    }
    median_of_two_windows<SIZE>(upper, shared, lower, medians[0], medians[1]);
    float largest = -NDP_RT_INFINITY;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int y = tile_y + row + i, x = tile_x + column;
        if (y < h && x < w) {
            out[y * w + x] = medians[i];
            largest = max_or_nan(largest, finite_or_nan(medians[i]));
        }
    }
    largest = block_max_or_nan<THREADS>(largest);
    if (thread == 0) *tile_maximum = largest;
}

__device__ __forceinline__ long long get_image_offset(int h, int w) { return (long long)blockIdx.z * h * w; }

__device__ __forceinline__ long long get_tile_number() {
    return ((long long)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
smooth(const float* __restrict__ maps, float* __restrict__ out, float* __restrict__ tile_maxima, int h, int w)
{
    const long long offset = get_image_offset(h, w);
    smooth_tile(OneMap(maps, offset), out + offset, tile_maxima + get_tile_number(), h, w);
}

extern "C" __global__ void __launch_bounds__(THREADS)
smooth_levels(const float* __restrict__ am1, const float* __restrict__ am2, const float* __restrict__ am3,
              float* __restrict__ out, float* __restrict__ tile_maxima, int h, int w)
{
    const long long offset = get_image_offset(h, w);
    smooth_tile(ThreeLevels(am1, am2, am3, offset), out + offset, tile_maxima + get_tile_number(), h, w);
}

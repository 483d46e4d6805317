// nearest_neighbour: the distance of each position of features [n, c, h w] from the nearest of patches [m, c].
//
//   nearest_neighbour_prepare  turns the patches into [c, pitch], m padded with zeros to whole tiles; once an asset
//   nearest_neighbour_tiles    squared distances, and the least of each position and tile: [tiles of patches, n, h w]
//   nearest_neighbour_least    the least of the tiles, and its root
//
// A block of 256 threads owns 64 positions x 64 patches, each thread 4 x 4 of them. STEP channels at a time lie in
// shared memory as float, for both sides side by side, so that loads go along the positions and along the patches.
// Differences are squared as they are: |f|^2 - 2 f p + |p|^2 on tensor cores would cancel, and near a patch of the
// memory nothing would be left of a 16-bit type's digits. Positions past the end read zeros and are not written; patches
// past the end are no candidates.

#include "shared/element.cuh"
#include "shared/numbers.cuh"

#define THREADS 256
#define TILE 64
#define STEP 16  // channels
#define OWN 4    // positions of a thread, and patches
#define LOADS (STEP * TILE / THREADS)

namespace {

// The smaller of two values, or NaN where one is NaN (fminf would drop it).
__device__ __forceinline__ float min_or_nan(float a, float b) { return a < b || a != a ? a : b; }

}  // namespace

// A thread owns one element of [c, pitch].
extern "C" __global__ void __launch_bounds__(THREADS)
nearest_neighbour_prepare(const element* __restrict__ memory, element* __restrict__ patches, int channels,
                          int patch_count, int pitch)
{
    const int index = blockIdx.x * THREADS + threadIdx.x;
    if (index >= channels * pitch) return;
    const int channel = index / pitch, patch = index % pitch;
    patches[index] = patch < patch_count ? memory[(long long)patch * channels + channel] : to_element(0.0f);
}

// blockIdx.x counts tiles of positions, blockIdx.y tiles of patches, blockIdx.z images.
extern "C" __global__ void __launch_bounds__(THREADS)
nearest_neighbour_tiles(const element* __restrict__ features, const element* __restrict__ patches,
                        float* __restrict__ least, int channels, int area, int patch_count, int pitch)
{
    __shared__ __align__(16) float left[STEP][TILE];
    __shared__ __align__(16) float right[STEP][TILE];
    __shared__ float parts[TILE / OWN][TILE];
    const int thread = threadIdx.x, column = thread % TILE, first_row = thread / TILE;
    const int first_position = blockIdx.x * TILE, first_patch = blockIdx.y * TILE;
    const int own_position = thread % (TILE / OWN) * OWN, own_patch = thread / (TILE / OWN) * OWN;
    const element* image = features + (long long)blockIdx.z * channels * area;
    const bool is_inside = first_position + column < area;
    float squares[OWN][OWN] = {};

    for (int first = 0; first < channels; first += STEP) {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const int row = first_row + i * (THREADS / TILE), channel = first + row;
            const bool is_there = channel < channels;
            left[row][column] = is_there && is_inside ? to_float(image[channel * area + first_position + column]) : 0.0f;
            right[row][column] = is_there ? to_float(patches[channel * pitch + first_patch + column]) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int row = 0; row < STEP; ++row) {
            const float4 a = *reinterpret_cast<const float4*>(&left[row][own_position]);
            const float4 b = *reinterpret_cast<const float4*>(&right[row][own_patch]);
            const float positions[OWN] = {a.x, a.y, a.z, a.w}, candidates[OWN] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < OWN; ++i)
#pragma unroll
                for (int j = 0; j < OWN; ++j) {
                    const float gap = positions[i] - candidates[j];
                    squares[i][j] += gap * gap;
                }
        }
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        float smallest = NDP_RT_INFINITY;
#pragma unroll
        for (int j = 0; j < OWN; ++j)
            if (first_patch + own_patch + j < patch_count) smallest = min_or_nan(squares[i][j], smallest);
        parts[own_patch / OWN][own_position + i] = smallest;
    }
    __syncthreads();
    if (thread >= TILE || !is_inside) return;
    float smallest = parts[0][thread];
#pragma unroll
    for (int part = 1; part < TILE / OWN; ++part) smallest = min_or_nan(parts[part][thread], smallest);
    least[((long long)blockIdx.y * gridDim.z + blockIdx.z) * area + first_position + thread] = smallest;
}

// A thread owns a position of an image.
extern "C" __global__ void __launch_bounds__(THREADS)
nearest_neighbour_least(const float* __restrict__ least, element* __restrict__ distances, int count, int tile_count)
{
    const int index = blockIdx.x * THREADS + threadIdx.x;
    if (index >= count) return;
    float smallest = least[index];
    for (int tile = 1; tile < tile_count; ++tile) smallest = min_or_nan(least[(long long)tile * count + index], smallest);
    distances[index] = to_element(sqrtf(smallest));
}

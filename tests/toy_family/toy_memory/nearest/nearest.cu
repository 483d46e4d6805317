// nearest_patch: the distance of each position of features [n, c, h, w] to the nearest of patches [m, c].
//
// A thread owns a position and goes through all patches; blockIdx.y counts images. NDP_RT_ELEMENT is the type.

#include "shared/element.cuh"

#define THREADS 128

extern "C" __global__ void __launch_bounds__(THREADS)
nearest_prepare(const element* __restrict__ memory, element* __restrict__ patches, int count)
{
    const int index = blockIdx.x * THREADS + threadIdx.x;
    if (index < count) patches[index] = memory[index];
}

extern "C" __global__ void __launch_bounds__(THREADS)
nearest(const element* __restrict__ features, const element* __restrict__ patches, element* __restrict__ distance,
        int channels, int area, int patch_count)
{
    const int position = blockIdx.x * THREADS + threadIdx.x;
    if (position >= area) return;
    const element* own = features + (long long)blockIdx.y * channels * area + position;
    float least = 3.4e38f;
    for (int patch = 0; patch < patch_count; ++patch) {
        float squares = 0.0f;
        for (int c = 0; c < channels; ++c) {
            const float gap = to_float(own[(long long)c * area]) - to_float(patches[patch * channels + c]);
            squares += gap * gap;
        }
        least = fminf(least, squares);
    }
    distance[(long long)blockIdx.y * area + position] = to_element(sqrtf(least));
}

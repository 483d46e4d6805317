// score: the largest value of each image; NaN where a value is NaN or infinite.
//
// Reads 4 bytes a value. A block of 256 threads owns an image: its values are the maxima of the tiles, 128 for
// 256 x 256 pixels. Maxima do not depend on their order, so that the same values give the same score.

#include "shared/numbers.cuh"
#include "shared/warp.cuh"

#define THREADS 256

extern "C" __global__ void __launch_bounds__(THREADS)
score(const float* __restrict__ values, float* __restrict__ scores, unsigned value_count)
{
    const float* own = values + (long long)blockIdx.x * value_count;
    float largest = -NDP_RT_INFINITY;
    for (unsigned i = threadIdx.x; i < value_count; i += THREADS)
        largest = max_or_nan(largest, finite_or_nan(own[i]));
    largest = block_max_or_nan<THREADS>(largest);
    if (threadIdx.x == 0) scores[blockIdx.x] = largest;
}

// Reductions over a warp or a block; every thread takes part. The order is fixed: the same values give the same bits.

// The sum of all lanes, in every lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// The larger of two values, or NaN where one is NaN (fmaxf would drop it).
__device__ __forceinline__ float max_or_nan(float a, float b) {
    return a > b || a != a ? a : b;
}

// The largest value of all lanes, or NaN where one is NaN, in every lane.
__device__ __forceinline__ float warp_max_or_nan(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        value = max_or_nan(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// The same over the threads of a block, along x; the result is thread 0's. To be called once in a kernel.
template <int THREADS> __device__ __forceinline__ float block_max_or_nan(float value) {
    __shared__ float warp_maxima[THREADS / 32];
    value = warp_max_or_nan(value);
    if (threadIdx.x % 32 == 0) warp_maxima[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int warp = 1; warp < THREADS / 32; ++warp) value = max_or_nan(value, warp_maxima[warp]);
    return value;
}

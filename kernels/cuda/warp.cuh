// Reductions over the 32 lanes of a warp; every lane takes part and gets the result. The order is fixed, so that the
// same values give the same bits.

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// The larger of two values, or NaN where one is NaN (fmaxf would drop it).
__device__ __forceinline__ float max_or_nan(float a, float b) {
    return a > b || a != a ? a : b;
}

__device__ __forceinline__ float warp_max_or_nan(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1)
        value = max_or_nan(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

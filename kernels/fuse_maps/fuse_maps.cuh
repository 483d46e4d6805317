// The weighted bilinear sum of the three level maps at one pixel (eq. 11): half-pixel centres, borders held.

#define LEVEL1_WEIGHT 0.2f
#define LEVEL2_WEIGHT 0.2f
#define LEVEL3_WEIGHT 0.6f

// Where a pixel lies between two samples of a map that is 2^SHIFT times smaller. Its position there is
// (p + 1/2) / 2^SHIFT - 1/2, a multiple of 1 / 2^(SHIFT + 1), so that index and weight are exact.
template <int SHIFT> struct Samples {
    int low, high;
    float high_weight;
    __device__ __forceinline__ Samples(int pixel, int count) {
        const int position = 2 * pixel + 1 - (1 << SHIFT);
        const int index = position >> (SHIFT + 1);  // rounds down, below zero too
        high_weight = (position & ((2 << SHIFT) - 1)) * (1.0f / (2 << SHIFT));
        low = max(index, 0);
        high = min(index + 1, count - 1);
    }
};

// The value of a level map at a pixel of the full size, bilinear; h and w are the full size.
template <int SHIFT> __device__ __forceinline__ float sample_level(const float* level, int y, int x, int h, int w) {
    const int width = w >> SHIFT;
    const Samples<SHIFT> rows(y, h >> SHIFT), columns(x, width);
    const float* upper = level + rows.low * width;
    const float* lower = level + rows.high * width;
    const float top = upper[columns.low] + columns.high_weight * (upper[columns.high] - upper[columns.low]);
    const float bottom = lower[columns.low] + columns.high_weight * (lower[columns.high] - lower[columns.low]);
    return top + rows.high_weight * (bottom - top);
}

__device__ __forceinline__ float fuse_levels(float value1, const float* am2, const float* am3, int y, int x, int h, int w) {
    return LEVEL1_WEIGHT * value1 + LEVEL2_WEIGHT * sample_level<1>(am2, y, x, h, w) +
           LEVEL3_WEIGHT * sample_level<2>(am3, y, x, h, w);
}

// Medians of 25 by fixed networks of minima and maxima: no branches, all values in registers.
//
// Two windows of 5 x 5, one below the other, share four rows. Of these 20 values the seven smallest and the seven
// largest cannot be the median of either window: each has at least 13 values on one side of it. So the middle six are
// found once, in order, and joined with the five values that only one of the windows has: 108 operations a median,
// where Batcher's network for 25 values alone takes 202.

__device__ __forceinline__ void exchange(float& low, float& high) {
    const float smaller = fminf(low, high);
    high = fmaxf(low, high);
    low = smaller;
}

// Batcher's odd-even merge sort of values[FIRST .. FIRST + COUNT), COUNT a power of two; places from SIZE on are not
// there, as if they held infinity. What no one reads of the result, the compiler leaves out.
template <int SIZE, int FIRST, int COUNT, int STEP> __device__ __forceinline__ void merge(float (&values)[SIZE]) {
    if constexpr (2 * STEP < COUNT) {
        merge<SIZE, FIRST, COUNT, 2 * STEP>(values);
        merge<SIZE, FIRST + STEP, COUNT, 2 * STEP>(values);
#pragma unroll
        for (int i = STEP; i + STEP < COUNT; i += 2 * STEP)
            if (FIRST + i + STEP < SIZE) exchange(values[FIRST + i], values[FIRST + i + STEP]);
    } else if constexpr (FIRST + STEP < SIZE) {
        exchange(values[FIRST], values[FIRST + STEP]);
    }
}

template <int SIZE, int FIRST, int COUNT> __device__ __forceinline__ void sort(float (&values)[SIZE]) {
    if constexpr (COUNT > 1) {
        sort<SIZE, FIRST, COUNT / 2>(values);
        sort<SIZE, FIRST + COUNT / 2, COUNT / 2>(values);
        merge<SIZE, FIRST, COUNT, 1>(values);
    }
}

// The sixth smallest of six and five values, both in order.
__device__ __forceinline__ float median_of_sorted(const float (&six)[6], const float (&five)[5]) {
    float median = six[5];
#pragma unroll
    for (int i = 0; i < 5; ++i) median = fminf(median, fmaxf(six[i], five[4 - i]));
    return median;
}

// Replaces `upper` and `lower`, the rows that only one window has, by their sorted selves; `shared` likewise.
__device__ __forceinline__ void median_of_two_windows(
    float (&upper)[5], float (&shared)[20], float (&lower)[5], float& upper_median, float& lower_median) {
    sort<20, 0, 32>(shared);
    float middle[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) middle[i] = shared[7 + i];
    sort<5, 0, 8>(upper);
    sort<5, 0, 8>(lower);
    upper_median = median_of_sorted(middle, upper);
    lower_median = median_of_sorted(middle, lower);
}

// Medians of 25 or 9 by fixed networks of minima and maxima: no branches, all values in registers.
//
// Two windows of 5 x 5, one below the other, share four rows. Of these 20 values the seven smallest and the seven
// largest cannot be the median of either window: each has at least 13 values on one side of it. So the middle six are
// found once, in order, and joined with the five values that only one of the windows has: 108 operations a median,
// where Batcher's network for 25 values alone takes 202. Of 3 x 3, the middle four of six are joined with three.

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

// The COUNT-th smallest of COUNT values and COUNT - 1 others, both in order.
template <int COUNT>
__device__ __forceinline__ float median_of_sorted(const float (&values)[COUNT], const float (&others)[COUNT - 1]) {
    float median = values[COUNT - 1];
#pragma unroll
    for (int i = 0; i < COUNT - 1; ++i) median = fminf(median, fmaxf(values[i], others[COUNT - 2 - i]));
    return median;
}

// Replaces `upper` and `lower`, the rows that only one window has, by their sorted selves; `shared` likewise.
template <int SIDE>
__device__ __forceinline__ void median_of_two_windows(float (&upper)[SIDE], float (&shared)[SIDE * (SIDE - 1)],
                                                      float (&lower)[SIDE], float& upper_median, float& lower_median) {
    static_assert(SIDE == 3 || SIDE == 5, "the powers of two below hold for these");
    sort<SIDE * (SIDE - 1), 0, SIDE == 5 ? 32 : 8>(shared);
    float middle[SIDE + 1];
#pragma unroll
    for (int i = 0; i < SIDE + 1; ++i) middle[i] = shared[(SIDE * (SIDE - 1) - (SIDE + 1)) / 2 + i];
    sort<SIDE, 0, SIDE == 5 ? 8 : 4>(upper);
    sort<SIDE, 0, SIDE == 5 ? 8 : 4>(lower);
    upper_median = median_of_sorted<SIDE + 1>(middle, upper);
    lower_median = median_of_sorted<SIDE + 1>(middle, lower);
}

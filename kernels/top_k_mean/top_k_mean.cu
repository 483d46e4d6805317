// top_k_mean: the mean of each image's k largest values; NaN where a value is NaN or infinite.
//
// A block of 512 threads owns an image. It reads 4 bytes a value five times, all but the first from L2 where the image
// fits there (256 KB for 256 x 256 pixels). Four passes find the k-th largest value, eight bits in each, most
// significant first: a histogram in shared memory counts the values that share all bits found so far. The last pass
// adds up what is larger; the k-th value itself stands for the rest, however many are equal to it.
//
// Sums are exact: significands are added as integers, one sum for each exponent. So neither the order of the values nor
// that of the atomics changes a bit of the result, and only the few steps behind them round, in a fixed order.

#include "shared/numbers.cuh"

#define THREADS 512
#define DIGITS 256
#define COPIES 8  // of the histogram, so that fewer threads count in the same word at once
#define OWN_DIGITS (DIGITS / 32)

// The bits of a value as a number that is larger where the value is.
__device__ __forceinline__ unsigned to_rank(unsigned bits) { return bits ^ ((int)bits >> 31 | 0x80000000u); }
__device__ __forceinline__ unsigned from_rank(unsigned rank) {
    return rank & 0x80000000u ? rank ^ 0x80000000u : ~rank;
}

// A value is significand x 2^(exponent - 150), for exponent 0 as for 1.
__device__ __forceinline__ int get_exponent(unsigned bits) { return bits >> 23 & 0xff; }
__device__ __forceinline__ int get_significand(unsigned bits) {
    const int magnitude = (bits & 0x7fffff) | (get_exponent(bits) ? 0x800000 : 0);
    return (int)bits < 0 ? -magnitude : magnitude;
}

// Finds the digit at `shift` of the k-th largest value, by the first warp. `found` holds the digits before it, `wanted`
// how many of the k largest values share them; both are brought up to date. Each lane has eight digits, largest first.
__device__ __forceinline__ void find_digit(const unsigned (&counts)[COPIES][DIGITS], int shift, unsigned& found,
                                           unsigned& wanted) {
    const unsigned lane = threadIdx.x, prefix = found, sought = wanted;
    unsigned own[OWN_DIGITS] = {}, total = 0;
#pragma unroll
    for (int i = 0; i < OWN_DIGITS; ++i) {
#pragma unroll
        for (int copy = 0; copy < COPIES; ++copy) own[i] += counts[copy][DIGITS - 1 - OWN_DIGITS * lane - i];
        total += own[i];
    }
    unsigned larger = total;
#pragma unroll
    for (int distance = 1; distance < 32; distance <<= 1) {
        const unsigned before = __shfl_up_sync(0xffffffffu, larger, distance);
        if (lane >= distance) larger += before;
    }
    larger -= total;
    __syncwarp();  // every lane has read both: shuffles put no access to memory in order
#pragma unroll
    for (int i = 0; i < OWN_DIGITS; ++i) {
        if (larger < sought && sought <= larger + own[i]) {  // true once in the warp
            found = prefix | (DIGITS - 1 - OWN_DIGITS * lane - i) << shift;
            wanted = sought - larger;
        }
        larger += own[i];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
top_k_mean(const float* __restrict__ values, float* __restrict__ means, unsigned value_count, unsigned k)
{
    __shared__ unsigned counts[COPIES][DIGITS];
    __shared__ unsigned long long sums[DIGITS];  // of significands, by exponent; negative ones as two's complement
    __shared__ double parts[DIGITS];
    __shared__ unsigned found, wanted, is_spoilt;
    const unsigned thread = threadIdx.x;
    const unsigned* own = reinterpret_cast<const unsigned*>(values) + (long long)blockIdx.x * value_count;
    if (thread == 0) found = 0, wanted = k, is_spoilt = 0;
    if (thread < DIGITS) sums[thread] = 0;

#pragma unroll 1
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (unsigned i = thread; i < COPIES * DIGITS; i += THREADS) counts[i / DIGITS][i % DIGITS] = 0;
        __syncthreads();
        const unsigned prefix = found;
        for (unsigned i = thread; i < value_count; i += THREADS) {
            const unsigned bits = own[i], rank = to_rank(bits);
            if (get_exponent(bits) == 0xff) atomicOr(&is_spoilt, 1u);
            if (shift == 24 || (rank ^ prefix) >> (shift + 8) == 0)
                atomicAdd(&counts[thread / 32 % COPIES][rank >> shift & 0xff], 1u);
        }
        __syncthreads();
        if (is_spoilt) break;
        if (thread < 32) find_digit(counts, shift, found, wanted);
        __syncthreads();
    }
    if (is_spoilt) {
        if (thread == 0) means[blockIdx.x] = NDP_RT_NAN;
        return;
    }

    int exponent = 0;  // neighbours are alike: what has the same exponent is added up before it goes to shared memory
    long long sum = 0;
    for (unsigned i = thread; i < value_count; i += THREADS) {
        const unsigned bits = own[i];
        if (to_rank(bits) <= found) continue;
        if (get_exponent(bits) != exponent) {
            atomicAdd(&sums[exponent], (unsigned long long)sum);
            exponent = get_exponent(bits), sum = 0;
        }
        sum += get_significand(bits);
    }
    if (thread == 0) {
        const unsigned bits = from_rank(found);
        atomicAdd(&sums[get_exponent(bits)], (unsigned long long)((long long)get_significand(bits) * wanted));
    }
    atomicAdd(&sums[exponent], (unsigned long long)sum);
    __syncthreads();
    if (thread < DIGITS) parts[thread] = ldexp((double)(long long)sums[thread], max(thread, 1u) - 150);
    for (unsigned half = DIGITS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) parts[thread] += parts[thread + half];
    }
    if (thread == 0) means[blockIdx.x] = (float)(parts[0] / k);
}

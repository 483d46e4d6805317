// nearest_sample: |features - nearest sample|, the nearest by the sum of absolute differences over all of an image.
//
//   nearest_sample_prepare     copies the samples [m, c, h, w]; once an asset
//   nearest_sample_sums        the sums of absolute differences, in chunks: [n, m, chunks]
//   nearest_sample_difference  adds the chunks, finds the least, and writes the difference from that sample
//
// Bound by memory: for a sum each value of a sample takes a subtraction and an addition. A block owns a chunk of one
// sample, keeps it in registers and goes through all images with it, so that samples come from memory once whatever the
// batch; the features, one image's at a time for all blocks, come from L2. NDP_RT_WIDTH is how many elements a thread
// reads at once: 16 bytes where the length of an image allows, else one. Chunks are added in a fixed order.

#include "shared/element.cuh"
#include "shared/numbers.cuh"
#include "shared/warp.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
#define STEPS 4  // vectors of a thread: what hides the latency of memory at 16 bytes each

namespace {

struct alignas(NDP_RT_WIDTH * sizeof(element)) Vector {
    element values[NDP_RT_WIDTH];
};

// The number of a thread's vector in an image.
__device__ __forceinline__ int find_vector(int step) {
    return (blockIdx.x * STEPS + step) * THREADS + threadIdx.x;
}

__device__ __forceinline__ float add_differences(const Vector& a, const Vector& b, float sum) {
#pragma unroll
    for (int i = 0; i < NDP_RT_WIDTH; ++i) sum += fabsf(to_float(a.values[i]) - to_float(b.values[i]));
    return sum;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
nearest_sample_prepare(const Vector* __restrict__ memory, Vector* __restrict__ samples, int vector_count)
{
    const int index = blockIdx.x * THREADS + threadIdx.x;
    if (index < vector_count) samples[index] = memory[index];
}

// blockIdx.x counts chunks, blockIdx.y samples. A thread past the end of an image adds nothing.
extern "C" __global__ void __launch_bounds__(THREADS)
nearest_sample_sums(const Vector* __restrict__ features, const Vector* __restrict__ samples, float* __restrict__ sums,
                    int image_count, int vector_count)
{
    __shared__ float parts[2][WARPS];  // one is written while the other is read
    const Vector* sample = samples + (long long)blockIdx.y * vector_count;
    Vector own[STEPS];
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
        if (find_vector(step) < vector_count) own[step] = sample[find_vector(step)];

    for (int image = 0; image < image_count; ++image) {
        const Vector* single = features + (long long)image * vector_count;
        float sum = 0.0f;
#pragma unroll
        for (int step = 0; step < STEPS; ++step)
            if (find_vector(step) < vector_count) sum = add_differences(single[find_vector(step)], own[step], sum);
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) parts[image % 2][threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x > 0) continue;
        float total = 0.0f;
        for (float part : parts[image % 2]) total += part;
        sums[((long long)image * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = total;
    }
}

// blockIdx.x counts chunks, blockIdx.y images; every block finds the nearest sample for itself. Each warp adds up the
// chunks of every eighth sample. Where no sum is a number, it is the first sample.
extern "C" __global__ void __launch_bounds__(THREADS)
nearest_sample_difference(const Vector* __restrict__ features, const Vector* __restrict__ samples,
                          const float* __restrict__ sums, Vector* __restrict__ difference, int vector_count,
                          int sample_count)
{
    __shared__ float least[WARPS];
    __shared__ int nearest[WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float* own_sums = sums + (long long)blockIdx.y * sample_count * gridDim.x;
    float own_least = NDP_RT_INFINITY;
    int own_nearest = 0;
    for (int sample = warp; sample < sample_count; sample += WARPS) {
        float sum = 0.0f;
        for (unsigned chunk = lane; chunk < gridDim.x; chunk += 32) sum += own_sums[(long long)sample * gridDim.x + chunk];
        sum = warp_sum(sum);
        if (sum < own_least) own_least = sum, own_nearest = sample;
    }
    if (lane == 0) least[warp] = own_least, nearest[warp] = own_nearest;
    __syncthreads();
    float found = least[0];
    int index = nearest[0];
#pragma unroll
    for (int other = 1; other < WARPS; ++other)
        if (least[other] < found || (least[other] == found && nearest[other] < index))
            found = least[other], index = nearest[other];

    const Vector* sample = samples + (long long)index * vector_count;
    const long long first = (long long)blockIdx.y * vector_count;
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const int place = find_vector(step);
        if (place >= vector_count) continue;
        const Vector own = features[first + place], remembered = sample[place];
        Vector gap;
#pragma unroll
        for (int i = 0; i < NDP_RT_WIDTH; ++i)
            gap.values[i] = to_element(fabsf(to_float(own.values[i]) - to_float(remembered.values[i])));
        difference[first + place] = gap;
    }
}

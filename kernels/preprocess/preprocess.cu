// preprocess: an image to the network's input in one pass; the definition is preprocess/definition.py.
//
// preprocess_convert is for images of the input's size, preprocess_resize for all others. `sample` is the image's type,
// `element` the input's. Both axes are weighted by taps: a run of source pixels whose inner ones all weigh the same.

#include "shared/element.cuh"

#ifndef NDP_RT_SOURCE_BYTES
#error "NDP_RT_SOURCE_BYTES is not defined: 1 uint8, 2 uint16"
#elif NDP_RT_SOURCE_BYTES == 1
typedef unsigned char sample;
#elif NDP_RT_SOURCE_BYTES == 2
typedef unsigned short sample;
#endif

#define THREADS 256
#define OWNED 4  // samples, or pixels, that a thread takes at a time: loads of 4 or 8 bytes
#define PLANES 3

struct alignas(OWNED * sizeof(sample)) SampleGroup {
    sample value[OWNED];
};
struct alignas(OWNED * sizeof(element)) ElementGroup {
    element value[OWNED];
};

// The source pixels that one target pixel is made of, on one axis; last_weight is 0 where count is 1.
struct Taps {
    int first, count;
    float first_weight, inner_weight, last_weight;
};

// Integers hold the borders exactly: in units of 1 / target where the axis shrinks, of 1 / (2 target) where it grows.
// Sides are below 2^15, so that all products stay below 2^31.
__device__ __forceinline__ Taps find_taps(int source, int target, int index) {
    Taps taps = {0, 1, 1.0f, 0.0f, 0.0f};
    if (source > target) {  // the mean of what the target pixel covers: two pixels at least
        const int low = index * source, high = low + source;
        const int last = (high - 1) / target;
        taps.first = low / target;
        taps.count = last - taps.first + 1;
        taps.first_weight = static_cast<float>((taps.first + 1) * target - low) / source;
        taps.inner_weight = static_cast<float>(target) / source;
        taps.last_weight = static_cast<float>(high - last * target) / source;
        return taps;
    }
    const int position = (2 * index + 1) * source - target;
    if (position <= 0) return taps;  // the border is held
    taps.first = position / (2 * target);
    const int rest = position - taps.first * 2 * target;
    if (rest == 0 || taps.first + 1 >= source) return taps;
    taps.count = 2;
    taps.last_weight = static_cast<float>(rest) / (2 * target);
    taps.first_weight = 1.0f - taps.last_weight;
    return taps;
}

__device__ __forceinline__ unsigned cut(sample value, unsigned white) {
    return sizeof(sample) == 1 ? value : min(static_cast<unsigned>(value), white);  // 255 cuts no byte
}

// value / white, rounded as a division is (Markstein's theorem), where `inverse` is 1 / white, rounded. A division
// would be four times as long, and call a function.
__device__ __forceinline__ float divide(float value, float white, float inverse) {
    const float quotient = value * inverse;
    return fmaf(fmaf(-quotient, white, value), inverse, quotient);
}

// Four neighbouring samples in one load.
struct LoadGroup {
    static constexpr int ROWS_AHEAD = 4;
    long long offset;
    __device__ __forceinline__ SampleGroup operator()(const unsigned char* row) const {
        return *reinterpret_cast<const SampleGroup*>(row + offset);
    }
};

// Four samples wherever they lie.
struct LoadScattered {
    static constexpr int ROWS_AHEAD = 2;
    long long offset[OWNED];
    __device__ __forceinline__ SampleGroup operator()(const unsigned char* row) const {
        SampleGroup group;
#pragma unroll
        for (int i = 0; i < OWNED; ++i) group.value[i] = *reinterpret_cast<const sample*>(row + offset[i]);
        return group;
    }
};

// Weigh the rows of `taps` for four samples. Inner rows are added as integers: exact (2^15 rows of 2^16 fit 32 bits).
// Up to six loads of a group are under way at a time: from 1024 threads on an SM that is 24 kB, more than a memory of
// 3.4 TB/s with 700 ns of latency needs.
template <class Load>
__device__ __forceinline__ void sum_rows(const unsigned char* image, long long row_stride, const Taps& taps,
                                         unsigned white, const Load& load, float (&sum)[OWNED]) {
    const unsigned char* row = image + taps.first * row_stride;
    const SampleGroup first = load(row);
    const SampleGroup last = load(row + (taps.count - 1) * row_stride);
    unsigned inner[OWNED] = {};
    row += row_stride;
#pragma unroll Load::ROWS_AHEAD
    for (int i = 2; i < taps.count; ++i, row += row_stride) {
        const SampleGroup group = load(row);
#pragma unroll
        for (int j = 0; j < OWNED; ++j) inner[j] += cut(group.value[j], white);
    }
#pragma unroll
    for (int j = 0; j < OWNED; ++j)
        sum[j] = taps.first_weight * cut(first.value[j], white) + taps.inner_weight * inner[j] +
                 taps.last_weight * cut(last.value[j], white);
}

// A block makes `tile_columns` pixels of one target row. First each thread weighs the source rows for its samples: a
// warp reads whole stretches of a row, and each sample is read once but for the few that lie under two target pixels.
// Then `lanes` threads (a power of two, at most a warp) weigh the columns for each value, from shared memory, in an
// order that is always the same. What the kernel calls rows is what lies apart in memory: the launcher turns transposed
// and mirrored images by the sizes and signs of the out_ strides.
//
// Blocks of 256 threads: tiles along x, target rows along y, images x groups along z. A row has row_samples samples
// that may be read, sample_stride bytes apart, pixel_samples to a pixel; channel_count of those are used, from
// first_channel in steps of channel_step. An image whose channels lie apart is `group_count` groups of one channel.
// Strides of the source are bytes, of the target elements. is_aligned: four samples can be loaded at once everywhere.
extern "C" __global__ void __launch_bounds__(THREADS)
preprocess_resize(const unsigned char* __restrict__ images, element* __restrict__ out, long long image_stride,
                  long long group_stride, long long row_stride, long long sample_stride, long long out_image_stride,
                  long long out_row_stride, long long out_column_stride, int source_rows, int source_columns,
                  int row_samples, int target_rows, int target_columns, int pixel_samples, int channel_count,
                  int first_channel, int channel_step, int group_count, int tile_columns, int lanes, int is_aligned,
                  float white)
{
    extern __shared__ __align__(16) float sums[];
    const int thread = threadIdx.x;
    const int image_index = blockIdx.z / group_count, group = blockIdx.z % group_count;
    const unsigned char* image = images + image_index * image_stride + group * group_stride;

    const int start = blockIdx.x * tile_columns;
    const int columns = min(tile_columns, target_columns - start);
    const Taps left = find_taps(source_columns, target_columns, start);
    const Taps right = find_taps(source_columns, target_columns, start + columns - 1);
    const int begin = left.first * pixel_samples / OWNED * OWNED;
    const int end = min((right.first + right.count) * pixel_samples, row_samples);
    const Taps rows = find_taps(source_rows, target_rows, blockIdx.y);
    for (int base = begin; base < end; base += THREADS * OWNED) {
        // Aligned: four neighbours a thread. Else a thread takes every 256th, so that each load of a warp is of
        // neighbours. What would lie past the end reads the last sample once more, and nothing uses its sum.
        const int mine = base + (is_aligned ? thread * OWNED : thread), step = is_aligned ? 1 : THREADS;
        if (mine >= end) continue;
        float sum[OWNED];
        if (is_aligned && mine + OWNED <= row_samples) {
            sum_rows(image, row_stride, rows, white, LoadGroup{mine * sample_stride}, sum);
        } else {
            LoadScattered load;
#pragma unroll
            for (int i = 0; i < OWNED; ++i) load.offset[i] = min(mine + i * step, end - 1) * sample_stride;
            sum_rows(image, row_stride, rows, white, load, sum);
        }
        if (is_aligned) {  // the launcher leaves room for a whole last group
            *reinterpret_cast<float4*>(sums + mine - begin) = make_float4(sum[0], sum[1], sum[2], sum[3]);
        } else {
#pragma unroll
            for (int i = 0; i < OWNED; ++i)
                if (mine + i * step < end) sums[mine + i * step - begin] = sum[i];
        }
    }
    __syncthreads();

    const int lane = thread % lanes, values = columns * channel_count;
    const bool is_grey = channel_count * group_count == 1;
    const long long plane_stride = static_cast<long long>(target_rows) * target_columns;
    out += image_index * out_image_stride + blockIdx.y * out_row_stride;
    for (int base = 0; base < values; base += THREADS / lanes) {
        const int mine = base + thread / lanes, value = min(mine, values - 1);
        const int channel = value / columns, column = value % columns;
        const Taps taps = find_taps(source_columns, target_columns, start + column);
        const float* source = sums + taps.first * pixel_samples - begin + first_channel + channel * channel_step;
        float inner = 0.0f;
        for (int i = 1 + lane; i < taps.count - 1; i += lanes) inner += source[i * pixel_samples];
        for (int other = lanes / 2; other > 0; other /= 2) inner += __shfl_xor_sync(0xffffffffu, inner, other);
        if (lane != 0 || mine >= values) continue;
        const float mean = taps.first_weight * source[0] + taps.inner_weight * inner +
                           taps.last_weight * source[(taps.count - 1) * pixel_samples];
        // Rounded weights may add up to more than 1.
        const element result = to_element(fminf(divide(mean, white, 1.0f / white), 1.0f));
        element* place = out + (start + column) * out_column_stride;
        for (int plane = is_grey ? 0 : group + channel; plane < (is_grey ? PLANES : group + channel + 1); ++plane)
            place[plane * plane_stride] = result;
    }
}

// Four pixels of STORED samples each, side by side, in STORED loads; grey goes to every plane.
template <int STORED>
__device__ __forceinline__ void convert_packed(const unsigned char* source, element* out, long long plane_stride,
                                               int first_channel, int channel_step, float white, float inverse) {
    SampleGroup stored[STORED];
#pragma unroll
    for (int i = 0; i < STORED; ++i) stored[i] = reinterpret_cast<const SampleGroup*>(source)[i];
#pragma unroll
    for (int channel = 0; channel < STORED; ++channel) {
        ElementGroup pixels;
#pragma unroll
        for (int i = 0; i < OWNED; ++i) {
            const int place = i * STORED + channel;
            const unsigned value = cut(stored[place / OWNED].value[place % OWNED], white);
            pixels.value[i] = to_element(divide(value, white, inverse));
        }
        const int plane = (channel - first_channel) * channel_step;
        if (STORED > 1 && plane >= 0 && plane < PLANES)
            *reinterpret_cast<ElementGroup*>(out + plane * plane_stride) = pixels;
        for (int grey = 0; STORED == 1 && grey < PLANES; ++grey)
            *reinterpret_cast<ElementGroup*>(out + grey * plane_stride) = pixels;
    }
}

// A thread makes four neighbouring pixels (columns is a multiple of four): 16 or 8 bytes of each plane. `stored` is 1,
// 3 or 4 where that many samples a pixel lie side by side and may be loaded by fours, else 0: then each sample is a
// load of its own. Plane p is sample first_channel + p * channel_step of a pixel. Strides are bytes.
//
// Blocks of 256 threads along x, images along y.
extern "C" __global__ void __launch_bounds__(THREADS)
preprocess_convert(const unsigned char* __restrict__ images, element* __restrict__ out, long long image_stride,
                   long long row_stride, long long column_stride, long long channel_stride, int rows, int columns,
                   int row_samples, int stored, int channel_count, int first_channel, int channel_step, float white)
{
    const int group = blockIdx.x * THREADS + threadIdx.x, groups = columns / OWNED;
    const int row = group / groups, column = group % groups * OWNED;
    if (row >= rows) return;
    const long long plane_stride = static_cast<long long>(rows) * columns;
    const float inverse = 1.0f / white;
    const unsigned char* source = images + blockIdx.y * image_stride + row * row_stride + column * column_stride;
    out += blockIdx.y * PLANES * plane_stride + static_cast<long long>(row) * columns + column;
    if (stored > 0 && (column + OWNED) * stored <= row_samples) {
        if (stored == 1) convert_packed<1>(source, out, plane_stride, first_channel, channel_step, white, inverse);
        if (stored == 3) convert_packed<3>(source, out, plane_stride, first_channel, channel_step, white, inverse);
        if (stored == 4) convert_packed<4>(source, out, plane_stride, first_channel, channel_step, white, inverse);
        return;
    }
    for (int channel = 0; channel < channel_count; ++channel) {
        const unsigned char* first = source + (first_channel + channel * channel_step) * channel_stride;
        ElementGroup pixels;
#pragma unroll
        for (int i = 0; i < OWNED; ++i) {
            const unsigned value = cut(*reinterpret_cast<const sample*>(first + i * column_stride), white);
            pixels.value[i] = to_element(divide(value, white, inverse));
        }
        for (int plane = channel; plane < (channel_count == 1 ? PLANES : channel + 1); ++plane)
            *reinterpret_cast<ElementGroup*>(out + plane * plane_stride) = pixels;
    }
}

// threshold: 1 where a map reaches the limit of its image, else 0 (also at NaN).
//
// Moves 5 bytes a pixel and computes nothing, so that it is bound by memory: a thread owns four neighbouring pixels,
// one 16-byte load and one 4-byte store, where an image's size is a multiple of four; else it takes them one by one.
// Blocks of 256 threads along x, images along y.

#define PIXELS_PER_THREAD 4

extern "C" __global__ void __launch_bounds__(256)
threshold(const float* __restrict__ maps, const float* __restrict__ limits, unsigned char* __restrict__ mask,
          unsigned pixel_count)
{
    const long long image = (long long)blockIdx.y * pixel_count;
    const float limit = limits[blockIdx.y];
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * PIXELS_PER_THREAD;
    if (first >= pixel_count) return;
    if (pixel_count % PIXELS_PER_THREAD == 0) {
        const float4 values = *reinterpret_cast<const float4*>(maps + image + first);
        *reinterpret_cast<uchar4*>(mask + image + first) =
            make_uchar4(values.x >= limit, values.y >= limit, values.z >= limit, values.w >= limit);
        return;
    }
    for (unsigned pixel = first; pixel < min(first + PIXELS_PER_THREAD, pixel_count); ++pixel)
        mask[image + pixel] = maps[image + pixel] >= limit;
}

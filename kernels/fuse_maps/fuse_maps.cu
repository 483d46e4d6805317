// fuse_maps: AM_final before smoothing, the weighted bilinear sum of three level maps (eq. 11).
//
// Moves 4 + 1 + 1/4 bytes a pixel in and 4 out, for some 25 operations: bound by memory. A thread owns four
// neighbouring pixels of a row: h and w are multiples of four, so that AM_1 and the sum go as 16 bytes; the samples of
// AM_2 and AM_3 are shared with the neighbours through the cache. Blocks of 256 threads along x, images along y.

#include "fuse_maps.cuh"

extern "C" __global__ void __launch_bounds__(256)
fuse_maps(const float* __restrict__ am1, const float* __restrict__ am2, const float* __restrict__ am3,
          float* __restrict__ out, int h, int w)
{
    const unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (first >= (unsigned)(h * w)) return;
    const long long offset = (long long)blockIdx.y * h * w;
    const int y = first / w, x = first % w;
    const float4 own = *reinterpret_cast<const float4*>(am1 + offset + first);
    const float* level2 = am2 + offset / 4;
    const float* level3 = am3 + offset / 16;
    *reinterpret_cast<float4*>(out + offset + first) = make_float4(
        fuse_levels(own.x, level2, level3, y, x, h, w), fuse_levels(own.y, level2, level3, y, x + 1, h, w),
        fuse_levels(own.z, level2, level3, y, x + 2, h, w), fuse_levels(own.w, level2, level3, y, x + 3, h, w));
}

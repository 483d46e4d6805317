// Arithmetic that CUDA has built in. Fast approximations are computed exactly: their error is the hardware's own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

using std::max;
using std::min;

template <class To, class From> To reinterpret_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

inline float __int_as_float(int bits) { return reinterpret_bits<float>(bits); }
inline int __float_as_int(float value) { return reinterpret_bits<int>(value); }
inline float __uint_as_float(unsigned bits) { return reinterpret_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return reinterpret_bits<unsigned>(value); }

// The C library declares __expf and __logf as functions of its own.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __fsqrt_rn(x) sqrtf(x)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
// Volatile, so that the host compiler does not join them into a fused multiply and add either.
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
inline float __fadd_rn(float a, float b) { volatile float sum = a + b; return sum; }
inline float __fsub_rn(float a, float b) { volatile float difference = a - b; return difference; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }  // NaN gives 0

inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

template <class T> T __ldg(const T *address) { return *address; }
template <class T> T __ldcs(const T *address) { return *address; }
template <class T> void __stcs(T *address, T value) { *address = value; }

// fp16: stored as _Float16, rounded to nearest even; arithmetic is done in float and rounded, as HADD and HMUL do.
#pragma once

#include "intrinsics.h"
#include "vector_types.h"

struct __half {
    _Float16 value;
    __half() = default;
    __half(float x) : value((_Float16)x) {}
    operator float() const { return (float)value; }
};
typedef __half half;

struct alignas(4) __half2 {
    __half x, y;
};
typedef __half2 half2;

inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __half2float(__half x) { return (float)x.value; }
inline __half __ushort_as_half(unsigned short bits) { return reinterpret_bits<__half>(bits); }
inline unsigned short __half_as_ushort(__half x) { return reinterpret_bits<unsigned short>(x); }

inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 x) { return {__half(x.x), __half(x.y)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 x) { return {(float)x.x, (float)x.y}; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline float __low2float(__half2 x) { return (float)x.x; }
inline float __high2float(__half2 x) { return (float)x.y; }

inline __half __hadd(__half a, __half b) { return __half((float)a + (float)b); }
inline __half __hsub(__half a, __half b) { return __half((float)a - (float)b); }
inline __half __hmul(__half a, __half b) { return __half((float)a * (float)b); }

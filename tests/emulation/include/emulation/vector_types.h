// CUDA's vector types, with the device's alignment.
#pragma once

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define NDP_RT_VECTOR_TYPES(element, name)                                                              \
    struct alignas(2 * sizeof(element)) name##2 { element x, y; };                                      \
    struct alignas(4 * sizeof(element)) name##4 { element x, y, z, w; };                                \
    inline name##2 make_##name##2(element x, element y) { return {x, y}; }                              \
    inline name##4 make_##name##4(element x, element y, element z, element w) { return {x, y, z, w}; }
NDP_RT_VECTOR_TYPES(float, float)
NDP_RT_VECTOR_TYPES(int, int)
NDP_RT_VECTOR_TYPES(unsigned, uint)
NDP_RT_VECTOR_TYPES(short, short)
NDP_RT_VECTOR_TYPES(unsigned short, ushort)
NDP_RT_VECTOR_TYPES(signed char, char)
NDP_RT_VECTOR_TYPES(unsigned char, uchar)
#undef NDP_RT_VECTOR_TYPES

struct float3 { float x, y, z; };
struct int3 { int x, y, z; };
struct uchar3 { unsigned char x, y, z; };
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uchar3 make_uchar3(unsigned char x, unsigned char y, unsigned char z) { return {x, y, z}; }

// The element type of a kernel's arrays, chosen by the launcher: NDP_RT_ELEMENT is 0 for float, 1 for half, 2 for
// bfloat16. Arithmetic is done in float. The 16-bit types are converted by the instructions themselves, so that no
// header of CUDA is needed, which a machine may lack.

#ifndef NDP_RT_ELEMENT
#error "NDP_RT_ELEMENT is not defined: 0 float, 1 half, 2 bfloat16"
#elif NDP_RT_ELEMENT == 0
typedef float element;
__device__ __forceinline__ float to_float(element value) { return value; }
__device__ __forceinline__ element to_element(float value) { return value; }
#else
struct element {
    unsigned short bits;
};
#endif

#if NDP_RT_ELEMENT == 1
__device__ __forceinline__ float to_float(element value)
{
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

__device__ __forceinline__ element to_element(float value)
{
    element result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}
#elif NDP_RT_ELEMENT == 2
__device__ __forceinline__ float to_float(element value)
{
    float result;
    asm("mov.b32 %0, {0, %1};" : "=f"(result) : "h"(value.bits));
    return result;
}

__device__ __forceinline__ element to_element(float value)
{
    element result;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // to the nearest, of two equally near ones to the even one
    const unsigned bits = __float_as_uint(value);
    result.bits = value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#endif
    return result;
}
#endif

// The element type of a kernel's arrays, chosen by the launcher: NDP_RT_ELEMENT is 0 for float, 1 for half, 2 for
// bfloat16. Arithmetic is done in float.

#ifndef NDP_RT_ELEMENT
#error "NDP_RT_ELEMENT is not defined: 0 float, 1 half, 2 bfloat16"
#elif NDP_RT_ELEMENT == 0
typedef float element;
__device__ __forceinline__ float to_float(element value) { return value; }
__device__ __forceinline__ element to_element(float value) { return value; }
#elif NDP_RT_ELEMENT == 1
#include <cuda_fp16.h>
typedef __half element;
__device__ __forceinline__ float to_float(element value) { return __half2float(value); }
__device__ __forceinline__ element to_element(float value) { return __float2half_rn(value); }
#elif NDP_RT_ELEMENT == 2
#include <cuda_bf16.h>
typedef __nv_bfloat16 element;
__device__ __forceinline__ float to_float(element value) { return __bfloat162float(value); }
__device__ __forceinline__ element to_element(float value) { return __float2bfloat16_rn(value); }
#endif

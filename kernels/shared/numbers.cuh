// Numbers that the host's headers have and NVRTC has not.

#define NDP_RT_INFINITY __int_as_float(0x7f800000)
#define NDP_RT_NAN __int_as_float(0x7fc00000)

// The value, or NaN where it is infinite: a difference with itself that is not zero.
__device__ __forceinline__ float finite_or_nan(float value) {
    return value - value == 0.0f ? value : NDP_RT_NAN;
}

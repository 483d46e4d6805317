// Numbers that the host's headers have and NVRTC has not.

#define NDP_RT_INFINITY __int_as_float(0x7f800000)
#define NDP_RT_NAN __int_as_float(0x7fc00000)

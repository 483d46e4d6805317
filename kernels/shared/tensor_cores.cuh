// Products of 16-bit matrices on tensor cores, by the instructions themselves: `ldmatrix` and `mma.sync`, which every
// architecture from 7.5 has (bfloat16 from 8.0). All lanes of a warp take part. Nothing of it is there for float.

#include "element.cuh"

#if NDP_RT_ELEMENT != 0
#if NDP_RT_ELEMENT == 1
#define NDP_RT_FACTOR "f16"
#else
#define NDP_RT_FACTOR "bf16"
#endif

namespace {

__device__ __forceinline__ unsigned find_shared_address(const void* pointer)
{
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Loads four matrices of 8 x 8 elements from shared memory. Lanes 8 i to 8 i + 7 give the addresses of the rows of
// matrix i, multiples of 16. A lane gets two neighbouring elements of each: of row lane / 4, or transposed of column
// lane / 4, from place 2 (lane % 4).
template <bool is_transposed> __device__ __forceinline__ void load_matrices(unsigned (&pairs)[4], unsigned address)
{
    if (is_transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
                     : "r"(address)
                     : "memory");
}

// Adds left [16, 16] x right [16, 8] to sums [16, 8]. `left` holds its quarters: above left, below left, above right,
// below right; `right` its halves, above and below, transposed. A lane has of the sums columns 2 (lane % 4) and the
// next, of row lane / 4 in places 0 and 1 and of row lane / 4 + 8 in places 2 and 3.
__device__ __forceinline__ void add_product(float (&sums)[4], const unsigned (&left)[4], const unsigned* right)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#pragma unroll
    for (int half = 0; half < 2; ++half)
        asm("mma.sync.aligned.m16n8k8.row.col.f32." NDP_RT_FACTOR "." NDP_RT_FACTOR ".f32 {%0, %1, %2, %3}, {%4, %5}, "
            "{%6}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(left[2 * half]), "r"(left[2 * half + 1]), "r"(right[half]));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32." NDP_RT_FACTOR "." NDP_RT_FACTOR ".f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
#endif
}

}  // namespace
#endif

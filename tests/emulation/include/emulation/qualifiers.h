// CUDA's declaration words, as host C++.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)  // the bounds are read from the source and checked at every launch
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
// One host thread runs one block at a time, so that its thread-local storage is the block's shared memory. Unlike
// `static`, the word may follow `extern`, as dynamic shared memory needs.
#define __shared__ thread_local

"""half, bfloat16 and matrix fragments of the emulation, against NumPy and ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest

from tests.emulation.emulator import EmulatedModule, Emulator
from tests.emulation.memory import copy_to_device, make_empty

CODE = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
using namespace nvcuda;

extern "C" __global__ void widen(const __half* halves, const __nv_bfloat16* bfloats, float* out, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        out[i] = __half2float(halves[i]);
        out[count + i] = __bfloat162float(bfloats[i]);
    }
}
extern "C" __global__ void narrow(const float* values, __half* halves, __nv_bfloat16* bfloats, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        halves[i] = __float2half_rn(values[i]);
        bfloats[i] = __float2bfloat16_rn(values[i]);
    }
}
#ifndef FACTOR
#define FACTOR __half
#endif
template <int M, int N>
__device__ void multiply(const FACTOR* a, const FACTOR* b, const float* c, float* d) {
    wmma::fragment<wmma::matrix_a, M, N, 16, FACTOR, wmma::row_major> left;
    wmma::fragment<wmma::matrix_b, M, N, 16, FACTOR, wmma::col_major> right;
    wmma::fragment<wmma::accumulator, M, N, 16, float> sum;
    wmma::load_matrix_sync(left, a, 24);
    wmma::load_matrix_sync(right, b, 16);
    wmma::load_matrix_sync(sum, c, N, wmma::mem_row_major);
    wmma::mma_sync(sum, left, right, sum);
    for (int i = 0; i < sum.num_elements; ++i) sum.x[i] *= 2.0f;
    wmma::store_matrix_sync(d, sum, M, wmma::mem_col_major);
}
extern "C" __global__ void multiply_16_16(const FACTOR* a, const FACTOR* b, const float* c, float* d) {
    multiply<16, 16>(a, b, c, d);
}
extern "C" __global__ void multiply_32_8(const FACTOR* a, const FACTOR* b, const float* c, float* d) {
    multiply<32, 8>(a, b, c, d);
}
extern "C" __global__ void multiply_8_32(const FACTOR* a, const FACTOR* b, const float* c, float* d) {
    multiply<8, 32>(a, b, c, d);
}
"""
EVERY_BIT_PATTERN = np.arange(65536, dtype=np.uint16)


@pytest.fixture(params=["__half", "__nv_bfloat16"])
def factor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def module(emulator: Emulator, factor: str) -> EmulatedModule:
    return emulator.make_module(code=CODE, options=(f"-DFACTOR={factor}",))


def test_every_half_and_bfloat16_widens_exactly(emulator: Emulator) -> None:
    bits = copy_to_device(EVERY_BIT_PATTERN)
    out = make_empty((2, 65536), np.float32)
    module = emulator.make_module(code=CODE, options=("-DFACTOR=__half",))
    module.get_function("widen")((1,), (256,), (bits, bits, out, np.int32(65536)))
    halves, bfloats = (EVERY_BIT_PATTERN.view(kind).astype(np.float32) for kind in (np.float16, ml_dtypes.bfloat16))
    assert np.array_equal(out.get()[0], halves, equal_nan=True)
    assert np.array_equal(out.get()[1], bfloats, equal_nan=True)


def test_narrowing_rounds_to_nearest_even(emulator: Emulator, rng: np.random.Generator) -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 1e-7, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11]
    scales = 10.0 ** rng.uniform(-6, 6, 5000)
    values = np.concatenate([np.array(special), rng.normal(size=5000) * scales]).astype(np.float32)
    halves, bfloats = make_empty(values.shape, np.float16), make_empty(values.shape, np.uint16)
    module = emulator.make_module(code=CODE, options=("-DFACTOR=__half",))
    module.get_function("narrow")((1,), (64,), (copy_to_device(values), halves, bfloats, np.int32(values.size)))
    with np.errstate(over="ignore"):
        assert np.array_equal(halves.get(), values.astype(np.float16), equal_nan=True)
    got = bfloats.get().view(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(got, values.astype(ml_dtypes.bfloat16).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(("m", "n"), [(16, 16), (32, 8), (8, 32)])
def test_fragments_multiply_matrices(
    module: EmulatedModule, factor: str, rng: np.random.Generator, m: int, n: int
) -> None:
    kind = np.float16 if factor == "__half" else ml_dtypes.bfloat16
    a, b = rng.normal(size=(m, 24)).astype(kind), rng.normal(size=(n, 16)).astype(kind)  # b is stored by columns
    c = rng.normal(size=(m, n)).astype(np.float32)
    held = [copy_to_device(x.view(np.uint16)) for x in (a, b)]
    d = make_empty((n, m), np.float32)
    module.get_function(f"multiply_{m}_{n}")((1,), (32,), (*held, copy_to_device(c), d))
    expected = 2 * (c + a[:, :16].astype(np.float64) @ b.astype(np.float64).T)
    assert np.allclose(d.get().T, expected, atol=1e-4)

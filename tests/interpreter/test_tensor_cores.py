"""The kernels' half, bfloat16 and products on tensor cores, against NumPy and ml_dtypes."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 by it
import numpy as np
import pytest

from ndp_rt.kernels.checks import ELEMENT_CODES
from ndp_rt.kernels.source import FOLDER, read_source
from tests.interpreter.interpreter import InterpretedModule, Interpreter, LaunchError
from tests.interpreter.memory import copy_to_device, make_empty

CONVERSIONS = """
#include "shared/element.cuh"
extern "C" __global__ void widen(const element* elements, float* out, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = to_float(elements[i]);
}
extern "C" __global__ void narrow(const float* values, element* out, int count) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = to_element(values[i]);
}
"""
# left [16, 16] x right, which lies as its transpose [16, 16] or, TRANSPOSED, as it is: two halves of 8 columns.
PRODUCT = """
#include "shared/tensor_cores.cuh"
extern "C" __global__ void multiply(const element* left, const element* right, float* out) {
    __shared__ __align__(16) element a[16][24], b[16][24];
    const int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) a[i / 16][i % 16] = left[i], b[i / 16][i % 16] = right[i];
    __syncwarp();
    unsigned first[4], second[4];
    load_matrices<false>(first, find_shared_address(&a[lane % 16][lane / 16 * 8]));
    load_matrices<TRANSPOSED>(second, find_shared_address(TRANSPOSED ? &b[lane % 16][lane / 16 * 8]
                                                                 : &b[lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]));
    for (int half = 0; half < 2; ++half) {
        float sums[4] = {1.0f, 2.0f, 3.0f, 4.0f};
        add_product(sums, first, second + 2 * half);
        for (int i = 0; i < 4; ++i)
            out[(lane / 4 + i / 2 * 8) * 16 + half * 8 + lane % 4 * 2 + i % 2] = sums[i];
    }
}
"""
EVERY_BIT_PATTERN = np.arange(65536, dtype=np.uint16)
Compile = Callable[..., InterpretedModule]
FORMS = [("float16", 75), ("float16", 90), ("float16", 120), ("bfloat16", 90), ("bfloat16", 120)]


@pytest.fixture
def compile_source(interpreter_cache: Path, tmp_path: Path) -> Compile:
    """Compiles a source that includes our headers, for an element type and an architecture."""

    def compile_it(text: str, dtype: str, architecture: int, *options: str) -> InterpretedModule:
        (tmp_path / "source.cu").write_text(text)
        (tmp_path / "shared").symlink_to(FOLDER / "shared")
        code = read_source("source.cu", tmp_path).text
        options = (f"-DNDP_RT_ELEMENT={ELEMENT_CODES[dtype]}", "-std=c++17", "-ftz=true", *options)
        return Interpreter(interpreter_cache, architecture).make_module(code=code, options=options)

    return compile_it


@pytest.mark.parametrize("architecture", [75, 90, 120])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_element_widens_exactly(compile_source: Compile, dtype: str, architecture: int) -> None:
    out = make_empty((65536,), np.float32)
    widen = compile_source(CONVERSIONS, dtype, architecture).get_function("widen")
    widen((1,), (256,), (copy_to_device(EVERY_BIT_PATTERN), out, np.int32(65536)))
    expected = EVERY_BIT_PATTERN.view(np.dtype(dtype)).astype(np.float32)
    assert np.array_equal(out.get(), expected, equal_nan=True)


@pytest.mark.parametrize("architecture", [75, 90, 120])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrowing_rounds_to_nearest_even(
    compile_source: Compile, rng: np.random.Generator, dtype: str, architecture: int
) -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 1e-7, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11]
    scales = 10.0 ** rng.uniform(-6, 6, 5000)
    values = np.concatenate([np.array(special), rng.normal(size=5000) * scales]).astype(np.float32)
    out = make_empty(values.shape, np.uint16)
    narrow = compile_source(CONVERSIONS, dtype, architecture).get_function("narrow")
    narrow((1,), (64,), (copy_to_device(values), out, np.int32(values.size)))
    with np.errstate(over="ignore"):
        expected = values.astype(np.dtype(dtype)).astype(np.float32)
    assert np.array_equal(out.get().view(np.dtype(dtype)).astype(np.float32), expected, equal_nan=True)


@pytest.mark.parametrize(("dtype", "architecture"), FORMS)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_tensor_cores_multiply_matrices(
    compile_source: Compile, rng: np.random.Generator, dtype: str, architecture: int, is_transposed: bool
) -> None:
    multiply = compile_source(PRODUCT, dtype, architecture, f"-DTRANSPOSED={int(is_transposed)}").get_function(
        "multiply"
    )
    left, right = (rng.normal(size=(16, 16)).astype(np.dtype(dtype)) for _ in range(2))
    out = make_empty((16, 16), np.float32)
    held = [copy_to_device(one.view(np.uint16)) for one in (left, right)]
    multiply((1,), (32,), (*held, out))
    a, b = left.astype(np.float64), right.astype(np.float64)
    start = np.where(np.arange(16)[:, None] < 8, 1.0, 3.0) + np.arange(16) % 2
    assert np.allclose(out.get(), start + a @ (b if is_transposed else b.T), atol=1e-5)
    with pytest.raises(LaunchError, match="runs in a warp of which lanes have ended"):
        multiply((1,), (31,), (*held, out))

"""The execution model: what kernels compute under it, and which mistakes it does not let pass."""

from pathlib import Path

import numpy as np
import pytest

from ndp_rt.errors import DeviceError
from ndp_rt.kernels.load import Kernel
from tests.interpreter.barriers import assert_every_barrier_is_needed
from tests.interpreter.build import build_interpreter
from tests.interpreter.interpreter import InterpretedModule, Interpreter, LaunchError
from tests.interpreter.memory import FakeDeviceArray, copy_to_device, make_empty
from tests.kernels.nvrtc import compile_to_ptx

CODE = """
// A comment with __global__ in it is no kernel.
extern "C" __global__ void __launch_bounds__(2 * 64, 4) block_sum(const float* values, float* sums, int count) {
    extern __shared__ float partial[];
    float sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += values[blockIdx.x * count + i];
    for (int distance = 16; distance > 0; distance >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, distance);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < blockDim.x / 32; ++warp) sum += partial[warp];
        sums[blockIdx.x] = sum;
    }
}
extern "C" __global__ void index_threads(int* out) {
    int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}
extern "C" __global__ void reverse_in_warp(int* values) {
    __shared__ int held[32];
    held[threadIdx.x] = values[threadIdx.x];
    __syncwarp();
    values[threadIdx.x] = held[31 - threadIdx.x];
}
extern "C" __global__ void needless_barrier(int* values) {
    values[threadIdx.x] += 1;
    __syncthreads();
}
extern "C" __global__ void different_barriers(int* values) {
    if (threadIdx.x < 32) {
        __syncthreads();
        values[threadIdx.x] = 2;
    } else {
        values[threadIdx.x] = 1;
        __syncthreads();
    }
}
extern "C" __global__ void wait_for_another(int* values) {
    if (threadIdx.x == 0) while (atomicAdd(values, 0) == 0);
    else if (threadIdx.x == 32) atomicAdd(values, 1);
}
extern "C" __global__ void half_a_warp(int* values) {
    if (threadIdx.x < 16) values[threadIdx.x] = __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
    else __syncwarp();
}
extern "C" __global__ void never_all_at_barrier(int* values) {
    if (threadIdx.x < 16) { values[0] = __shfl_xor_sync(0xffffffffu, 1, 1); __syncthreads(); } else __syncthreads();
}
extern "C" __global__ void some_end_early(int* values) {
    if (threadIdx.x % 3 == 0) return;
    __syncthreads();
    values[threadIdx.x] = threadIdx.x;
}
extern "C" __global__ void use_atomics(int* values, float* sum, unsigned* count) {
    atomicAdd(values, 1);
    atomicMax(values + 1, (int)threadIdx.x);
    atomicMin(values + 2, (int)threadIdx.x);
    atomicAdd(sum, 0.5f);
    if (atomicInc(count, gridDim.x * blockDim.x - 1) == gridDim.x * blockDim.x - 1) values[3] = 1;
}
extern "C" __global__ void shuffles(int* out) {
    int lane = threadIdx.x;
    out[lane] = __shfl_sync(0xffffffffu, lane, 3, 8);
    out[32 + lane] = __shfl_up_sync(0xffffffffu, lane, 2, 16);
    out[64 + lane] = __shfl_down_sync(0xffffffffu, lane, 2, 16);
    out[96 + lane] = __shfl_xor_sync(0xffffffffu, lane, 17);
}
extern "C" __global__ void reverse_after_shuffles(int* values) {
    __shared__ int held[64];
    held[threadIdx.x] = __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
    __syncthreads();
    __syncwarp();
    values[threadIdx.x] = __shfl_xor_sync(0xffffffffu, held[63 - threadIdx.x], 1);
}
"""
COUNT = np.int32(1000)


@pytest.fixture
def module(interpreter: Interpreter) -> InterpretedModule:
    return interpreter.make_module(code=CODE)


def launch_block_sum(kernel: Kernel, values: FakeDeviceArray, threads: int = 128, shared_bytes: int = 16) -> np.ndarray:
    sums = make_empty((values.shape[0],), np.float32)
    kernel((values.shape[0],), (threads,), (values, sums, COUNT), shared_mem=shared_bytes)
    return sums.get()


@pytest.mark.parametrize("seed", range(6))
def test_threads_meet_at_barriers_and_shuffles(
    rng: np.random.Generator, interpreter: Interpreter, module: InterpretedModule, seed: int
) -> None:
    values = rng.random((5, 1000), dtype=np.float32)
    interpreter.seed = seed
    sums = launch_block_sum(Kernel("block_sum", module.get_function("block_sum")), copy_to_device(values))
    assert np.allclose(sums, values.sum(axis=1), rtol=1e-5)


def test_threads_and_blocks_have_their_indices(module: InterpretedModule) -> None:
    out = make_empty((2 * 3 * 4, 4 * 3 * 2), np.int32)
    module.get_function("index_threads")((2, 3, 4), (4, 3, 2), (out,))
    assert np.array_equal(out.get(), np.arange(24)[:, None] * 1000 + np.arange(24))


def test_shuffles_stay_within_their_width(module: InterpretedModule) -> None:
    out = make_empty((4, 32), np.int32)
    module.get_function("shuffles")((1,), (32,), (out,))
    lanes = np.arange(32)
    expected = [
        lanes // 8 * 8 + 3,
        np.where(lanes % 16 >= 2, lanes - 2, lanes),
        np.where(lanes % 16 < 14, lanes + 2, lanes),
    ]
    assert np.array_equal(out.get(), [*expected, lanes ^ 17])


def test_atomics_return_the_old_value_and_keep_the_new(module: InterpretedModule) -> None:
    values, total, count = (
        copy_to_device(np.array(v, t)) for v, t in (([0, -5, 99, 0], "i4"), ([0], "f4"), ([0], "u4"))
    )
    module.get_function("use_atomics")((3,), (64,), (values, total, count))
    assert values.get().tolist() == [192, 63, 0, 1]
    assert total.get().tolist() == [96.0]
    assert count.get().tolist() == [0]


def test_every_needed_barrier_is_missed(
    rng: np.random.Generator, interpreter: Interpreter, module: InterpretedModule
) -> None:
    values = copy_to_device(rng.random((2, 1000), dtype=np.float32))
    kernel = Kernel("block_sum", module.get_function("block_sum"))
    expected = values.get().sum(axis=1)
    assert_every_barrier_is_needed(
        interpreter, lambda: np.allclose(launch_block_sum(kernel, values), expected, rtol=1e-5)
    )
    assert list(interpreter.reached.values()) == ["kernel.cu:9"]

    reverse = Kernel("reverse_in_warp", module.get_function("reverse_in_warp"))

    def is_reversed() -> bool:
        lanes = copy_to_device(np.arange(32, dtype=np.int32))
        reverse((1,), (32,), (lanes,))
        return lanes.get().tolist() == list(range(31, -1, -1))

    assert_every_barrier_is_needed(interpreter, is_reversed)


def test_a_warp_runs_ahead_of_the_others_through_its_own_collectives(
    interpreter: Interpreter, module: InterpretedModule
) -> None:
    kernel = Kernel("reverse_after_shuffles", module.get_function("reverse_after_shuffles"))

    def is_reversed() -> bool:
        values = copy_to_device(np.arange(64, dtype=np.int32))
        kernel((1,), (64,), (values,))
        return np.array_equal(values.get(), np.arange(64)[::-1])

    for seed in (0, 1):
        interpreter.seed = seed
        assert is_reversed()
        interpreter.left_out = min(interpreter.reached)  # __syncthreads(), which comes first
        with pytest.raises(DeviceError, match="no barrier between|no thread wrote"):
            is_reversed()
        interpreter.left_out = None


def test_a_needless_barrier_is_named(interpreter: Interpreter, module: InterpretedModule) -> None:
    kernel = Kernel("needless_barrier", module.get_function("needless_barrier"))

    def is_right() -> bool:
        values = copy_to_device(np.zeros(64, np.int32))
        kernel((1,), (64,), (values,))
        return bool((values.get() == 1).all())

    with pytest.raises(AssertionError, match=r"without the barriers at kernel.cu:28$"):
        assert_every_barrier_is_needed(interpreter, is_right)


def test_a_thread_that_waits_is_given_up_or_relieved(interpreter: Interpreter, module: InterpretedModule) -> None:
    interpreter.max_steps = 10_000
    wait, values = module.get_function("wait_for_another"), copy_to_device(np.zeros(1, np.int32))
    with pytest.raises(LaunchError, match=r"wait_for_another: kernel.cu:\d+ .* still runs after 10000 steps"):
        wait((1,), (64,), (values,))  # the first warp has its turn until it gets no further
    interpreter.seed = 2
    wait((1,), (64,), (values,))
    assert values.get()[0] == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("different_barriers", "threads of one block wait at different __syncthreads"),
        ("half_a_warp", "lanes of one warp meet at different warp collectives"),
        ("never_all_at_barrier", "deadlock"),
    ],
)
def test_threads_that_part_are_an_error(module: InterpretedModule, entry: str, message: str) -> None:
    with pytest.raises(LaunchError, match=f"{entry}: {message}"):
        module.get_function(entry)((1,), (64,), (make_empty((64,), np.int32),))


def test_a_barrier_waits_for_threads_that_have_not_ended(module: InterpretedModule) -> None:
    values = copy_to_device(np.zeros(50, np.int32))
    module.get_function("some_end_early")((1,), (50,), (values,))  # the last warp is not whole
    assert np.array_equal(values.get(), np.where(np.arange(50) % 3 == 0, 0, np.arange(50)))


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1,), (129,), "more threads in a block than its __launch_bounds__"),
        ((1, 65536), (32,), "a grid beyond"),
        ((1,), (1, 1, 65), "a block beyond"),
        ((0,), (32,), "an empty grid or block"),
    ],
)
def test_sizes_that_no_gpu_takes_are_refused(
    module: InterpretedModule, grid: tuple[int, ...], block: tuple[int, ...], message: str
) -> None:
    values, sums = make_empty((1, 1000), np.float32), make_empty((1,), np.float32)
    with pytest.raises(LaunchError, match=message):
        module.get_function("block_sum")(grid, block, (values, sums, COUNT), shared_mem=16)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1000, "argument 2 has another size or kind"),
        (np.int64(1000), "argument 2 has another size or kind"),
        (np.float32(1000), "argument 2 has another size or kind"),
        (None, "device address, got NoneType"),
        ("x", "device address, got str"),
    ],
)
def test_arguments_of_another_kind_are_refused(module: InterpretedModule, count: object, message: str) -> None:
    values, sums = make_empty((1, 1000), np.float32), make_empty((1,), np.float32)
    with pytest.raises(LaunchError, match=message):
        module.get_function("block_sum")((1,), (32,), (values, sums, count), shared_mem=16)
    with pytest.raises(LaunchError, match="another number of arguments"):
        module.get_function("block_sum")((1,), (32,), (values, sums), shared_mem=16)


def test_unknown_kernels_are_named(module: InterpretedModule) -> None:
    with pytest.raises(LaunchError, match="no kernel 'block_product'; the source has block_sum, different_barriers"):
        module.get_function("block_product")


def test_a_source_that_does_not_compile_shows_the_compilers_words(interpreter: Interpreter) -> None:
    with pytest.raises(AssertionError, match="nonsense"):
        interpreter.make_module(code='extern "C" __global__ void broken() { nonsense; }')


def test_an_instruction_that_is_not_known_is_named(interpreter: Interpreter) -> None:
    code = 'extern "C" __global__ void k(float* x) { x[0] = __sinf(x[0]); }'
    with pytest.raises(LaunchError, match=r"does not take this PTX: unknown instruction sin.approx.f32 in: sin"):
        interpreter.make_module(code=code)


def test_a_source_is_compiled_once_for_the_same_inputs(interpreter_cache: Path, tmp_path: Path) -> None:
    code = 'extern "C" __global__ void fill(int* out) { out[threadIdx.x] = VALUE; }'
    library = build_interpreter(interpreter_cache)
    (tmp_path / library.name).symlink_to(library)
    for value, architecture in ((1, 75), (2, 75), (1, 75), (1, 120)):
        out = make_empty((4,), np.int32)
        module = Interpreter(tmp_path, architecture).make_module(code=code, options=(f"-DVALUE={value}", "-std=c++17"))
        module.get_function("fill")((1,), (4,), (out,))
        assert out.get().tolist() == [value] * 4
    assert len(list(tmp_path.glob("*.ptx"))) == 3


def test_the_lines_of_the_source_change_no_instruction() -> None:
    """CuPy compiles without them."""
    text = compile_to_ptx(CODE, (), 90)
    plain = compile_to_ptx(CODE, (), 90, with_lines=False)

    def list_instructions(ptx: str) -> list[str]:
        lines = (line.strip() for line in ptx.split(".section")[0].splitlines())
        return [line for line in lines if line and not line.startswith(("//", ".loc", ".file", ".target", "$"))]

    assert list_instructions(text) == list_instructions(plain)

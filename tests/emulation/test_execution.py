"""The execution model: what kernels compute under it, and which mistakes it does not let pass."""

from pathlib import Path

import numpy as np
import pytest

from ndp_rt.errors import DeviceError
from ndp_rt.kernels.load import Kernel
from tests.emulation.barriers import assert_every_barrier_is_needed
from tests.emulation.build import SourceError, write_host_code
from tests.emulation.emulator import EmulatedModule, Emulator, LaunchError
from tests.emulation.memory import FakeDeviceArray, copy_to_device, make_empty

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
    if (threadIdx.x < 32) __syncthreads(); else { values[0] = 1; __syncthreads(); }
}
extern "C" __global__ void half_a_warp(int* values) {
    if (threadIdx.x < 16) values[threadIdx.x] = __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
    else __syncwarp();
}
extern "C" __global__ void never_all_at_barrier(int* values) {
    if (threadIdx.x < 16) { values[0] = __shfl_xor_sync(0xffffffffu, 1, 1); __syncthreads(); } else __syncthreads();
}
extern "C" __global__ void touch(float* values, int place) { values[place] = values[place] + 1; }
extern "C" __global__ void write_only(unsigned char* values, int place) { values[place] = 1; }
extern "C" __global__ void write_shared(int place) {
    extern __shared__ float partial[];
    partial[place] = 1;
}
extern "C" __global__ void read_shared(float* out) {
    __shared__ float held[32];
    if (blockIdx.x == 0) held[threadIdx.x] = 1;
    out[blockIdx.x] = held[0];
}
extern "C" __global__ void flush(float* values) { values[1] = values[0] * 0.5f; }
extern "C" __global__ void use_atomics(int* values, float* sum, unsigned* count) {
    atomicAdd(values, 1);
    atomicMax(values + 1, (int)threadIdx.x);
    atomicMin(values + 2, (int)threadIdx.x);
    atomicAdd(sum, 0.5f);
    if (atomicInc(count, gridDim.x * blockDim.x - 1) == gridDim.x * blockDim.x - 1) values[3] = 1;
}
extern "C" __global__ void vote(unsigned* out) {
    unsigned even = __ballot_sync(0xffffffffu, threadIdx.x % 2 == 0);
    out[threadIdx.x] = even + __any_sync(0xffffffffu, threadIdx.x == 5) + __all_sync(0xffffffffu, threadIdx.x < 32);
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
def module(emulator: Emulator) -> EmulatedModule:
    return emulator.make_module(code=CODE)


def launch_block_sum(kernel: Kernel, values: FakeDeviceArray, threads: int = 128, shared_bytes: int = 16) -> np.ndarray:
    sums = make_empty((values.shape[0],), np.float32)
    kernel((values.shape[0],), (threads,), (values, sums, COUNT), shared_mem=shared_bytes)
    return sums.get()


@pytest.mark.parametrize("seed", range(6))
def test_threads_meet_at_barriers_and_shuffles(
    rng: np.random.Generator, emulator: Emulator, module: EmulatedModule, seed: int
) -> None:
    values = rng.random((5, 1000), dtype=np.float32)
    emulator.seed = seed
    sums = launch_block_sum(Kernel("block_sum", module.get_function("block_sum")), copy_to_device(values))
    assert np.allclose(sums, values.sum(axis=1), rtol=1e-5)


def test_threads_and_blocks_have_their_indices(module: EmulatedModule) -> None:
    out = make_empty((2 * 3 * 4, 4 * 3 * 2), np.int32)
    module.get_function("index_threads")((2, 3, 4), (4, 3, 2), (out,))
    assert np.array_equal(out.get(), np.arange(24)[:, None] * 1000 + np.arange(24))


def test_shuffles_stay_within_their_width(module: EmulatedModule) -> None:
    out = make_empty((4, 32), np.int32)
    module.get_function("shuffles")((1,), (32,), (out,))
    lanes = np.arange(32)
    expected = [
        lanes // 8 * 8 + 3,
        np.where(lanes % 16 >= 2, lanes - 2, lanes),
        np.where(lanes % 16 < 14, lanes + 2, lanes),
    ]
    assert np.array_equal(out.get(), [*expected, lanes ^ 17])


def test_votes_hear_every_lane(module: EmulatedModule) -> None:
    out = make_empty((32,), np.uint32)
    module.get_function("vote")((1,), (32,), (out,))
    assert np.array_equal(out.get(), np.full(32, 0x55555555 + 2, np.uint32))


def test_atomics_return_the_old_value_and_keep_the_new(module: EmulatedModule) -> None:
    values, total, count = (
        copy_to_device(np.array(v, t)) for v, t in (([0, -5, 99, 0], "i4"), ([0], "f4"), ([0], "u4"))
    )
    module.get_function("use_atomics")((3,), (64,), (values, total, count))
    assert values.get().tolist() == [192, 63, 0, 1]
    assert total.get().tolist() == [96.0]
    assert count.get().tolist() == [0]


def test_denormals_are_flushed_as_on_the_device(module: EmulatedModule) -> None:
    values = copy_to_device(np.array([np.finfo(np.float32).tiny, 1], np.float32))
    module.get_function("flush")((1,), (1,), (values,))
    assert values.get()[1] == 0
    assert np.float32(np.finfo(np.float32).tiny) * np.float32(0.5) != 0  # and not in the process that launched it


def test_every_needed_barrier_is_missed(rng: np.random.Generator, emulator: Emulator, module: EmulatedModule) -> None:
    values = copy_to_device(rng.random((2, 1000), dtype=np.float32))
    kernel = Kernel("block_sum", module.get_function("block_sum"))
    expected = values.get().sum(axis=1)
    assert_every_barrier_is_needed(emulator, lambda: np.allclose(launch_block_sum(kernel, values), expected, rtol=1e-5))
    assert list(emulator.reached.values()) == ["kernel.cu:9"]

    reverse = Kernel("reverse_in_warp", module.get_function("reverse_in_warp"))

    def is_reversed() -> bool:
        lanes = copy_to_device(np.arange(32, dtype=np.int32))
        reverse((1,), (32,), (lanes,))
        return lanes.get().tolist() == list(range(31, -1, -1))

    assert_every_barrier_is_needed(emulator, is_reversed)


def test_a_warp_runs_ahead_of_the_others_through_its_own_collectives(
    emulator: Emulator, module: EmulatedModule
) -> None:
    kernel = Kernel("reverse_after_shuffles", module.get_function("reverse_after_shuffles"))

    def is_reversed() -> bool:
        values = copy_to_device(np.arange(64, dtype=np.int32))
        kernel((1,), (64,), (values,))
        return np.array_equal(values.get(), np.arange(64)[::-1])

    for seed in (0, 1):
        emulator.seed = seed
        assert is_reversed()
        emulator.left_out = min(emulator.reached)  # __syncthreads(), which comes first
        assert not is_reversed()
        emulator.left_out = None


def test_a_needless_barrier_is_named(emulator: Emulator, module: EmulatedModule) -> None:
    kernel = Kernel("needless_barrier", module.get_function("needless_barrier"))

    def is_right() -> bool:
        values = copy_to_device(np.zeros(64, np.int32))
        kernel((1,), (64,), (values,))
        return bool((values.get() == 1).all())

    with pytest.raises(AssertionError, match=r"without the barriers at kernel.cu:28$"):
        assert_every_barrier_is_needed(emulator, is_right)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("different_barriers", "threads of one block wait at different __syncthreads"),
        ("half_a_warp", "lanes of one warp meet at different warp collectives"),
        ("never_all_at_barrier", "deadlock"),
    ],
)
def test_threads_that_part_are_an_error(module: EmulatedModule, entry: str, message: str) -> None:
    with pytest.raises(LaunchError, match=f"{entry}: {message}"):
        module.get_function(entry)((1,), (64,), (make_empty((64,), np.int32),))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (100, "0 bytes past the end of an array of 400 bytes"),
        (600, "2000 bytes past the end of an array of 400 bytes"),
        (-1000, "4000 bytes before the start of an array of 400 bytes"),
    ],
)
def test_memory_beside_an_array_is_not_touched(module: EmulatedModule, place: int, message: str) -> None:
    values = copy_to_device(np.zeros(100, np.float32))
    with pytest.raises(LaunchError, match=message):
        module.get_function("touch")((1,), (1,), (values, np.int32(place)))
    module.get_function("touch")((1,), (1,), (values, np.int32(99)))  # the process lives, and goes on
    assert values.get()[99] == 1


def test_a_write_into_the_gap_of_the_alignment_is_seen(module: EmulatedModule) -> None:
    values = make_empty((5,), np.uint8)
    with pytest.raises(LaunchError, match="written beside a device array"):
        module.get_function("write_only")((1,), (1,), (values, np.int32(5)))


def test_new_memory_holds_nan(module: EmulatedModule) -> None:
    assert np.isnan(make_empty((3, 5), np.float32).get()).all()
    out = make_empty((2,), np.float32)
    module.get_function("read_shared")((2,), (32,), (out,))  # the second block must not see what the first one wrote
    assert out.get()[0] == 1 and np.isnan(out.get()[1])


def test_dynamic_shared_memory_ends_where_the_launch_says(module: EmulatedModule) -> None:
    function = module.get_function("write_shared")
    function((1,), (1,), (np.int32(3),), shared_mem=16)
    with pytest.raises(LaunchError, match="past the launch's dynamic shared memory"):
        function((1,), (1,), (np.int32(4),), shared_mem=16)


def test_more_shared_memory_has_to_be_asked_for(module: EmulatedModule) -> None:
    function = module.get_function("write_shared")
    with pytest.raises(LaunchError, match="set max_dynamic_shared_size_bytes first"):
        function((1,), (1,), (np.int32(0),), shared_mem=49153)
    Kernel("write_shared", function)((1,), (1,), (np.int32(20000),), shared_mem=100000)
    with pytest.raises(DeviceError, match="more dynamic shared memory than the kernel can have"):
        Kernel("write_shared", function)((1,), (1,), (np.int32(0),), shared_mem=228 * 1024)


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1,), (129,), "more threads in a block than its __launch_bounds__"),
        ((1, 65536), (32,), "a grid beyond"),
        ((1,), (1, 1, 65), "a block beyond"),
        ((0,), (32,), "an empty grid"),
    ],
)
def test_sizes_that_no_gpu_takes_are_refused(
    module: EmulatedModule, grid: tuple[int, ...], block: tuple[int, ...], message: str
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
def test_arguments_of_another_kind_are_refused(module: EmulatedModule, count: object, message: str) -> None:
    values, sums = make_empty((1, 1000), np.float32), make_empty((1,), np.float32)
    with pytest.raises(LaunchError, match=message):
        module.get_function("block_sum")((1,), (32,), (values, sums, count), shared_mem=16)
    with pytest.raises(LaunchError, match="another number of arguments"):
        module.get_function("block_sum")((1,), (32,), (values, sums), shared_mem=16)


def test_unknown_kernels_are_named(module: EmulatedModule) -> None:
    with pytest.raises(LaunchError, match="no kernel 'block_product'; the source has block_sum, index_threads"):
        module.get_function("block_product")


def test_a_source_that_does_not_compile_shows_the_compilers_words(emulator: Emulator) -> None:
    with pytest.raises(SourceError, match="nonsense"):
        emulator.make_module(code='extern "C" __global__ void broken() { nonsense; }')
    with pytest.raises(SourceError, match="got 1 kernels in the source, of which 0"):
        write_host_code("__global__ void not_extern() {}")
    with pytest.raises(SourceError, match="Declare it once"):
        write_host_code(
            'extern "C" __global__ void k() { extern __shared__ int a[]; { extern __shared__ float b[]; } }'
        )


def test_a_library_is_built_once_for_the_same_inputs(emulation_cache: Path, tmp_path: Path) -> None:
    code = 'extern "C" __global__ void fill(int* out) { out[threadIdx.x] = VALUE; }'
    for value in (1, 2, 1):
        out = make_empty((4,), np.int32)
        module = Emulator(tmp_path).make_module(code=code, options=(f"-DVALUE={value}", "-std=c++17"))
        module.get_function("fill")((1,), (4,), (out,))
        assert out.get().tolist() == [value] * 4
    assert len(list(tmp_path.iterdir())) == 2


def test_a_block_has_stacks_for_its_own_threads_alone(emulator: Emulator) -> None:
    def count_mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    module = emulator.make_module(code='extern "C" __global__ void own_block(float* out, long long) { out[0] = 1; }')
    before = count_mappings()
    module.get_function("own_block")((1,), (32,), (make_empty((1,), np.float32), np.int64(0)))
    assert count_mappings() <= before + 2 * 32 + 16

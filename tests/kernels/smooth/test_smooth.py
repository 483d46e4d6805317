"""smooth: the OpenCV and CUDA forms against the definition, and the definition against plain loops."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.fuse_maps.definition import fuse_maps
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.score.launch import score
from ndp_rt.kernels.smooth import definition, launch
from ndp_rt.kernels.source import read_source
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import FakeDeviceArray, copy_to_device, make_empty
from tests.kernels.conftest import Device, InterpretedDevice
from tests.tolerances import assert_close

WINDOWS = (3, 5)
SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (5, 3), (4, 4), (17, 31), (64, 48), (256, 256)]


def smooth_by_loops(plane: np.ndarray, size_px: int) -> np.ndarray:
    """Return the mean, then the median, of a plane [h, w], pixel by pixel."""
    offsets = range(-(size_px // 2), size_px // 2 + 1)
    for reduce in (np.mean, np.median):
        h, w = plane.shape
        rows = [[min(max(y + d, 0), h - 1) for d in offsets] for y in range(h)]
        columns = [[min(max(x + d, 0), w - 1) for d in offsets] for x in range(w)]
        plane = np.array([[reduce(plane[np.ix_(rows[y], columns[x])]) for x in range(w)] for y in range(h)])
    return plane


@pytest.mark.parametrize("size_px", WINDOWS)
@pytest.mark.parametrize("size", SIZES[:-2])
def test_the_definition_is_mean_then_median_with_borders_held(
    rng: np.random.Generator, size: tuple[int, int], size_px: int
) -> None:
    plane = rng.random(size)
    assert_close(definition.smooth(plane, size_px), smooth_by_loops(plane, size_px), "smooth", "float32")


@pytest.mark.parametrize("size_px", WINDOWS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_host_form_equals_the_definition(
    rng: np.random.Generator, size: tuple[int, int], count: int, size_px: int
) -> None:
    from ndp_rt.kernels.smooth import host  # needs OpenCV, which a GPU machine may lack

    maps = rng.random((count, 1, *size), dtype=np.float32)
    before = maps.copy()
    out, scratch = np.full_like(maps, np.nan), np.full(size, np.nan, np.float32)
    host.smooth(maps, out, scratch, size_px=size_px)
    assert_close(out, definition.smooth(maps, size_px), "smooth", "float32")
    assert np.array_equal(maps, before)


def test_a_plane_without_batch_is_smoothed(rng: np.random.Generator) -> None:
    from ndp_rt.kernels.smooth import host  # needs OpenCV, which a GPU machine may lack

    plane = rng.random((9, 11), dtype=np.float32)
    out = np.empty_like(plane)
    host.smooth(plane, out, np.empty_like(plane))
    assert_close(out, definition.smooth(plane), "smooth", "float32")


@pytest.mark.parametrize("which", ["maps", "out", "scratch"])
@pytest.mark.parametrize("change", ["type", "shape", "layout"])
def test_arrays_of_another_kind_are_refused(which: str, change: str) -> None:
    from ndp_rt.kernels.smooth import host  # needs OpenCV, which a GPU machine may lack

    arrays = {"maps": np.zeros((1, 1, 8, 8)), "out": np.zeros((1, 1, 8, 8)), "scratch": np.zeros((8, 8))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    if change == "type":
        arrays[which] = arrays[which].astype(np.float64)
    elif change == "shape":
        arrays[which] = np.zeros((2, 2, 9, 8), np.float32)
    else:
        arrays[which] = arrays[which].repeat(2, axis=-1)[..., ::2]
    with pytest.raises(InputError, match=f"{which}: expected float32|out: expected float32"):
        host.smooth(**arrays)


def run_smooth(device: Device, *sources: np.ndarray, size_px: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return the smoothed maps and the tiles' maxima of one map, or of three levels."""
    n, _, h, w = sources[0].shape
    out = device.make_empty((n, 1, h, w), np.float32)
    maxima = device.make_empty((n, launch.count_smooth_tiles(h, w)), np.float32)
    form = launch.Smoothing(size_px=size_px, is_of_levels=len(sources) == 3)
    form.enqueue(device.kernels, [device.copy(source) for source in sources], out, maxima, stream=None)
    return np.asarray(out.get()), np.asarray(maxima.get())


def find_tile_maxima(smoothed: np.ndarray) -> np.ndarray:
    n, _, h, w = smoothed.shape
    tiles = [smoothed[..., y : y + 16, x : x + 32] for y in range(0, h, 16) for x in range(0, w, 32)]
    return np.stack([tile.reshape(n, -1).max(axis=1) for tile in tiles], axis=1)


@pytest.mark.parametrize("size_px", WINDOWS)
@pytest.mark.parametrize("size", [*SIZES[:-2], (16, 32), (17, 33), (20, 70), (48, 31)])
@pytest.mark.parametrize("count", [1, 3])
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, count: int, size: tuple[int, int], size_px: int
) -> None:
    maps = rng.normal(size=(count, 1, *size)).astype(np.float32) / 4
    smoothed, maxima = run_smooth(device, maps, size_px=size_px)
    assert_close(smoothed, definition.smooth(maps, size_px), "smooth", "float32")
    assert np.array_equal(maxima, find_tile_maxima(smoothed))


@pytest.mark.parametrize(
    ("size", "size_px"), [((4, 4), 5), ((4, 36), 5), ((36, 4), 5), ((20, 44), 5), ((256, 256), 5), ((20, 44), 3)]
)
@pytest.mark.parametrize("count", [1, 3])
def test_the_cuda_form_of_three_levels_equals_the_definition(
    rng: np.random.Generator, device: Device, count: int, size: tuple[int, int], size_px: int
) -> None:
    h, w = size
    levels = [rng.random((count, 1, h >> level, w >> level), dtype=np.float32) for level in range(3)]
    smoothed, maxima = run_smooth(device, *levels, size_px=size_px)
    assert_close(smoothed, definition.smooth(fuse_maps(levels), size_px), "smooth_levels", "float32")
    assert np.array_equal(maxima, find_tile_maxima(smoothed))


@on_every_architecture
def test_every_barrier_of_the_cuda_form_is_needed(
    rng: np.random.Generator, interpreter: Interpreter, kernels: KernelSet
) -> None:
    maps = rng.random((1, 1, 20, 40), dtype=np.float32)
    expected, device = definition.smooth(maps), InterpretedDevice(kernels)

    def is_right() -> bool:
        smoothed, maxima = run_smooth(device, maps)
        return np.allclose(smoothed, expected, atol=1e-6) and np.array_equal(maxima, find_tile_maxima(smoothed))

    assert_every_barrier_is_needed(interpreter, is_right)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (19, 39), (9, 0), (15, 31), (16, 32)])
def test_a_value_that_is_not_finite_spoils_the_score(device: Device, value: float, place: tuple[int, int]) -> None:
    maps = np.zeros((2, 1, 20, 40), np.float32)
    maps[(1, 0, *place)] = value
    _, maxima = run_smooth(device, maps)
    scores = device.make_empty((2,), np.float32)
    score(device.kernels, device.copy(maxima), scores, stream=None)
    assert scores.get()[0] == 0 and np.isnan(scores.get()[1])


CHECK_MEDIANS = """
__device__ int count_ones(const float* values, int count) {
    int ones = 0;
    for (int i = 0; i < count; ++i) ones += values[i] == 1.0f;
    return ones;
}
__device__ void fill_row(float* row, unsigned bits) {
    for (int i = 0; i < 5; ++i) row[i] = bits >> i & 1;
}
extern "C" __global__ void check_medians(const unsigned* rows, int* wrong) {
    for (unsigned bits = threadIdx.x; bits < 1u << 20; bits += blockDim.x) {
        float upper[5], shared[20], lower[5], medians[2];
        for (int i = 0; i < 20; ++i) shared[i] = bits >> i & 1;
        const int ones = count_ones(shared, 20);
        const int enough = min(max(13 - ones, 0), 5);  // ones of a row that make the median 1, if any number does
        fill_row(upper, rows[enough * 16 + bits % 16]);
        fill_row(lower, rows[max(enough - 1, 0) * 16 + bits % 16]);
        const float wanted[2] = {float(ones + count_ones(upper, 5) >= 13), float(ones + count_ones(lower, 5) >= 13)};
        median_of_two_windows<5>(upper, shared, lower, medians[0], medians[1]);
        if (medians[0] != wanted[0] || medians[1] != wanted[1]) atomicAdd(wrong, 1);
    }
}
extern "C" __global__ void check_medians_of_9(int* wrong) {
    for (unsigned bits = threadIdx.x; bits < 1u << 12; bits += blockDim.x) {
        float upper[3], shared[6], lower[3], medians[2];
        for (int i = 0; i < 3; ++i) upper[i] = bits >> i & 1, lower[i] = bits >> (3 + i) & 1;
        for (int i = 0; i < 6; ++i) shared[i] = bits >> (6 + i) & 1;
        const int ones = __popc(bits >> 6);
        const float wanted[2] = {float(ones + __popc(bits & 7) >= 5), float(ones + __popc(bits >> 3 & 7) >= 5)};
        median_of_two_windows<3>(upper, shared, lower, medians[0], medians[1]);
        if (medians[0] != wanted[0] || medians[1] != wanted[1]) atomicAdd(wrong, 1);
    }
}
"""


def test_the_median_of_the_cuda_form_is_right_for_every_input(interpreter: Interpreter) -> None:
    # A network of minima and maxima is right for all values if it is for zeros and ones; and where one more value is
    # one, its result cannot fall. So each of the 2^20 contents of the shared rows is tried with own rows of just
    # enough ones and of one less, these in every order that five values have.
    orders = [[bits for bits in range(32) if bits.bit_count() == ones] for ones in range(6)]
    rows = np.array([(order * 16)[:16] for order in orders], np.uint32)
    wrong = copy_to_device(np.zeros(1, np.int32))
    module = interpreter.make_module(code=read_source("smooth/median.cuh").text + CHECK_MEDIANS)
    module.get_function("check_medians")((1,), (32,), (copy_to_device(rows), wrong))
    module.get_function("check_medians_of_9")((1,), (32,), (wrong,))
    assert wrong.get()[0] == 0


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("maps", make_empty((1, 2, 20, 40), np.float32), r"maps: .*got float32 \[1, 2, 20, 40\]"),
        ("maps", make_empty((1, 1, 20, 80), np.float32)[..., ::2], "not dense"),
        (
            "smoothed",
            make_empty((1, 1, 20, 40), np.float16),
            r"smoothed: expected float32 \[1, 1, 20, 40\], dense.*got float16",
        ),
        (
            "tile_maxima",
            make_empty((1, 3), np.float32),
            r"tile_maxima: expected float32 \[1, 4\].*got float32 \[1, 3\]",
        ),
    ],
)
def test_device_arrays_of_another_kind_are_refused(
    kernels: KernelSet, name: str, array: FakeDeviceArray, message: str
) -> None:
    shapes = {"maps": (1, 1, 20, 40), "smoothed": (1, 1, 20, 40), "tile_maxima": (1, 4)}
    arrays = {key: make_empty(shape, np.float32) for key, shape in shapes.items()}
    with pytest.raises(InputError, match=message):
        maps, smoothed, maxima = {**arrays, name: array}.values()
        launch.Smoothing().enqueue(kernels, [maps], smoothed, maxima, stream=None)


@pytest.mark.parametrize("size_px", [0, 1, 4, 7])
def test_windows_of_another_size_are_refused(size_px: int) -> None:
    from ndp_rt.kernels.smooth import host  # needs OpenCV, which a GPU machine may lack

    message = f"smooth size: expected 3 or 5 px, got {size_px}"
    with pytest.raises(InputError, match=message):
        host.smooth(*(np.zeros((8, 8), np.float32) for _ in range(3)), size_px=size_px)
    with pytest.raises(InputError, match=message):
        launch.Smoothing(size_px=size_px)


def test_an_output_that_lies_on_the_map_is_refused(kernels: KernelSet) -> None:
    maps, maxima = make_empty((1, 1, 16, 32), np.float32), make_empty((1, 1), np.float32)
    with pytest.raises(InputError, match="smoothed and maps share memory"):
        launch.Smoothing().enqueue(kernels, [maps], maps, maxima, stream=None)

"""threshold: the CUDA form against the definition."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.threshold import definition, launch
from tests.emulation.memory import FakeDeviceArray, make_empty
from tests.kernels.conftest import Device


def run(device: Device, maps: np.ndarray, limits: np.ndarray) -> np.ndarray:
    n, _, h, w = maps.shape
    mask = device.make_empty((n, h, w), np.uint8)
    launch.threshold(device.kernels, device.copy(maps), device.copy(limits), mask, stream=None)
    return np.asarray(mask.get())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (16, 24), (37, 41), (256, 256)])
@pytest.mark.parametrize("count", [1, 3])
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, count: int, size: tuple[int, int]
) -> None:
    maps = rng.random((count, 1, *size), dtype=np.float32)
    limits = rng.random(count, dtype=np.float32)
    maps[:, 0, 0, 0] = limits  # a map reaches its limit where it equals it
    maps[-1, 0, -1, -1] = np.nan
    assert np.array_equal(run(device, maps, limits), definition.threshold(maps[:, 0], limits))


def test_the_definition_takes_the_limit_and_leaves_out_nan() -> None:
    maps = np.array([[0.5, 0.25, np.nan], [-1.0, 2.0, np.inf]])
    assert definition.threshold(maps, np.array([0.5, -1.0])).tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("maps", make_empty((2, 1, 4, 4), np.float16), r"maps: .*got float16 \[2, 1, 4, 4\], dense"),
        ("maps", make_empty((2, 2, 4, 4), np.float32), r"expected float32 \[any, 1, any, any\], dense"),
        ("maps", make_empty((2, 1, 4, 8), np.float32)[..., ::2], "not dense"),
        ("maps", make_empty((33,), np.float32)[1:].reshape(2, 1, 4, 4), "a multiple of 16 bytes"),
        ("limits", make_empty((3,), np.float32), r"limits: .*got float32 \[3\]"),
        ("mask", make_empty((2, 1, 4, 4), np.uint8), r"expected uint8 \[2, 4, 4\], dense"),
    ],
)
def test_arrays_of_another_kind_are_refused(
    kernels: KernelSet, name: str, array: FakeDeviceArray, message: str
) -> None:
    arrays = {
        "maps": make_empty((2, 1, 4, 4), np.float32),
        "limits": make_empty((2,), np.float32),
        "mask": make_empty((2, 4, 4), np.uint8),
    }
    with pytest.raises(InputError, match=message):
        launch.threshold(kernels, **{**arrays, name: array}, stream=None)

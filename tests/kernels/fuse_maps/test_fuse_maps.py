"""fuse_maps: the definition against OpenCV's own bilinear resize, and the CUDA form against the definition."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.fuse_maps.definition import fuse_maps, upsample_bilinear
from ndp_rt.kernels.fuse_maps.launch import FuseMapsCuda
from ndp_rt.kernels.load import KernelSet
from tests.interpreter.memory import FakeDeviceArray, make_empty
from tests.kernels.conftest import Device
from tests.tolerances import assert_close

SIZES = [(4, 4), (4, 12), (20, 8), (36, 44), (256, 256)]


@pytest.mark.parametrize(("source", "target"), [((1, 1), (4, 6)), ((3, 5), (6, 10)), ((8, 4), (32, 16))])
def test_upsampling_is_bilinear_with_half_pixel_centres(
    rng: np.random.Generator, source: tuple[int, int], target: tuple[int, int]
) -> None:
    import cv2  # a GPU machine may lack it

    plane = rng.random(source, dtype=np.float32)
    expected = cv2.resize(plane, target[::-1], interpolation=cv2.INTER_LINEAR)
    assert_close(upsample_bilinear(plane[None, None], *target)[0, 0], expected, "fuse_maps", "float32")


def test_maps_are_weighed_by_equation_11(rng: np.random.Generator) -> None:
    maps = [rng.random((2, 1, 32 >> level, 16 >> level)) for level in range(3)]
    assert_close(fuse_maps([np.ones_like(m) for m in maps]), np.ones((2, 1, 32, 16)), "fuse_maps", "float32")
    expected = 0.2 * maps[0] + 0.2 * upsample_bilinear(maps[1], 32, 16) + 0.6 * upsample_bilinear(maps[2], 32, 16)
    assert_close(fuse_maps(maps), expected, "fuse_maps", "float32")


def make_levels(rng: np.random.Generator, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    h, w = size
    return [rng.random((count, 1, h >> level, w >> level), dtype=np.float32) for level in range(3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, count: int, size: tuple[int, int]
) -> None:
    levels = make_levels(rng, count, size)
    out = device.make_empty(levels[0].shape, np.float32)
    FuseMapsCuda().enqueue(device.kernels, [device.copy(level) for level in levels], {}, [out], None, stream=None)
    assert_close(out.get(), fuse_maps(levels), "fuse_maps", "float32")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("am1", make_empty((1, 1, 6, 8), np.float32), "am1: expected h and w multiples of 4, .*got 6 x 8"),
        ("am1", make_empty((1, 8, 8), np.float32), r"am1: .*got float32 \[1, 8, 8\]"),
        (
            "am1",
            make_empty((65,), np.float32)[1:].reshape(1, 1, 8, 8),
            "am1: expected an address that is a multiple of 16 bytes",
        ),
        ("am1", make_empty((0, 1, 8, 8), np.float32), r"am1: .*got float32 \[0, 1, 8, 8\]"),
        ("am2", make_empty((1, 1, 8, 8), np.float32), r"am2: expected float32 \[1, 1, 4, 4\], dense"),
        ("am3", make_empty((1, 1, 2, 2), np.float16), "am3: .*got float16"),
        ("map", make_empty((2, 1, 8, 8), np.float32), r"map: .*got float32 \[2, 1, 8, 8\]"),
    ],
)
def test_arrays_of_another_kind_are_refused(
    kernels: KernelSet, name: str, array: FakeDeviceArray, message: str
) -> None:
    shapes = {"am1": (1, 1, 8, 8), "am2": (1, 1, 4, 4), "am3": (1, 1, 2, 2), "map": (1, 1, 8, 8)}
    arrays = {key: make_empty(shape, np.float32) for key, shape in shapes.items()}
    with pytest.raises(InputError, match=message):
        *levels, out = {**arrays, name: array}.values()
        FuseMapsCuda().enqueue(kernels, levels, {}, [out], None, stream=None)


def test_an_output_that_lies_on_an_input_is_refused(kernels: KernelSet) -> None:
    both = make_empty((2, 1, 8, 8), np.float32)
    am2, am3 = make_empty((1, 1, 4, 4), np.float32), make_empty((1, 1, 2, 2), np.float32)
    with pytest.raises(InputError, match="map and am1 share memory"):
        FuseMapsCuda().enqueue(kernels, [both[:1], am2, am3], {}, [both[:1]], None, stream=None)

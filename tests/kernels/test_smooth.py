"""smooth: the OpenCV form against the definition, and the definition against plain loops."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels import host, reference
from tests.tolerances import assert_close

SIZES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (5, 3), (4, 4), (17, 31), (64, 48), (256, 256)]


def smooth_by_loops(plane: np.ndarray) -> np.ndarray:
    """Return the 5 x 5 mean, then the 5 x 5 median, of a plane [h, w], pixel by pixel."""
    for reduce in (np.mean, np.median):
        h, w = plane.shape
        rows = [[min(max(y + d, 0), h - 1) for d in range(-2, 3)] for y in range(h)]
        columns = [[min(max(x + d, 0), w - 1) for d in range(-2, 3)] for x in range(w)]
        plane = np.array([[reduce(plane[np.ix_(rows[y], columns[x])]) for x in range(w)] for y in range(h)])
    return plane


@pytest.mark.parametrize("size", SIZES[:-2])
def test_the_definition_is_mean_then_median_with_borders_held(rng: np.random.Generator, size: tuple[int, int]) -> None:
    plane = rng.random(size)
    assert_close(reference.smooth(plane), smooth_by_loops(plane), "smooth", "float32")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_host_form_equals_the_definition(rng: np.random.Generator, size: tuple[int, int], count: int) -> None:
    maps = rng.random((count, 1, *size), dtype=np.float32)
    before = maps.copy()
    out, scratch = np.full_like(maps, np.nan), np.full(size, np.nan, np.float32)
    host.smooth(maps, out, scratch)
    assert_close(out, reference.smooth(maps), "smooth", "float32")
    assert np.array_equal(maps, before)


def test_a_plane_without_batch_is_taken(rng: np.random.Generator) -> None:
    plane = rng.random((9, 11), dtype=np.float32)
    out = np.empty_like(plane)
    host.smooth(plane, out, np.empty_like(plane))
    assert_close(out, reference.smooth(plane), "smooth", "float32")


@pytest.mark.parametrize("which", ["maps", "out", "scratch"])
@pytest.mark.parametrize("change", ["type", "shape", "layout"])
def test_arrays_of_another_kind_are_refused(which: str, change: str) -> None:
    arrays = {"maps": np.zeros((1, 1, 8, 8)), "out": np.zeros((1, 1, 8, 8)), "scratch": np.zeros((8, 8))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    if change == "type":
        arrays[which] = arrays[which].astype(np.float64)
    elif change == "shape":
        arrays[which] = np.zeros((2, 2, 9, 8), np.float32)
    else:
        arrays[which] = arrays[which].repeat(2, axis=-1)[..., ::2]
    with pytest.raises(InputError, match="is taken"):
        host.smooth(**arrays)

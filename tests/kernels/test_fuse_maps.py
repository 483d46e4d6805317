"""fuse_maps: the definition against OpenCV's own bilinear resize."""

import cv2
import numpy as np
import pytest

from ndp_rt.kernels.reference import fuse_maps, upsample_bilinear
from tests.tolerances import assert_close


@pytest.mark.parametrize(("source", "target"), [((1, 1), (4, 6)), ((3, 5), (6, 10)), ((8, 4), (32, 16))])
def test_upsampling_is_bilinear_with_half_pixel_centres(
    rng: np.random.Generator, source: tuple[int, int], target: tuple[int, int]
) -> None:
    plane = rng.random(source, dtype=np.float32)
    expected = cv2.resize(plane, target[::-1], interpolation=cv2.INTER_LINEAR)
    assert_close(upsample_bilinear(plane[None, None], *target)[0, 0], expected, "fuse_maps", "float32")


def test_maps_are_weighed_by_equation_11(rng: np.random.Generator) -> None:
    maps = [rng.random((2, 1, 32 >> level, 16 >> level)) for level in range(3)]
    assert_close(fuse_maps([np.ones_like(m) for m in maps]), np.ones((2, 1, 32, 16)), "fuse_maps", "float32")
    expected = 0.2 * maps[0] + 0.2 * upsample_bilinear(maps[1], 32, 16) + 0.6 * upsample_bilinear(maps[2], 32, 16)
    assert_close(fuse_maps(maps), expected, "fuse_maps", "float32")

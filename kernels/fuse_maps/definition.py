"""The definition of fuse_maps: NumPy, float64 inside."""

from collections.abc import Sequence

import numpy as np

from ndp_rt.arrays import Array, Float64Array
from ndp_rt.kernels.interpolation import weigh_linear

LEVEL_MAPS = ("am1", "am2", "am3")  # what it reads, the largest first
MAP_WEIGHTS = (0.2, 0.2, 0.6)  # eq. 11


def upsample_bilinear(level_map: Array, h: int, w: int) -> Float64Array:
    """Resize [n, c, h', w'] to [n, c, h, w], half-pixel centres, borders held."""
    rows, columns = weigh_linear(level_map.shape[2], h), weigh_linear(level_map.shape[3], w)
    resized: Float64Array = rows @ level_map.astype(np.float64) @ columns.T
    return resized


def fuse_maps(maps: Sequence[Array]) -> Float64Array:
    """Return AM_final [n, 1, h, w], not yet smoothed, from AM_1 to AM_3, the first at full size (eq. 11)."""
    h, w = maps[0].shape[2:]
    total = np.zeros(maps[0].shape, np.float64)
    for weight, level_map in zip(MAP_WEIGHTS, maps, strict=True):
        total += weight * upsample_bilinear(level_map, h, w)
    return total

"""smooth: the mean, then the median, of a map or of the weighted sum of three; and the maxima for the score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_rt.kernels.checks import DeviceArray, check_apart, check_array, check_image_count, get_address
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.fuse_maps.launch import check_levels
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.smooth.definition import SIZE_PX, check_size
from ndp_rt.program.program import SMOOTH_SIZES_PX

FILE = "smooth/smooth.cu"
VARIANTS = tuple(
    Variant(file=FILE, entry=entry, max_registers=64, defines={"NDP_RT_SMOOTH_SIZE": size})
    for entry in ("smooth", "smooth_levels")
    for size in SMOOTH_SIZES_PX
)
BLOCK_THREADS = 256
TILE_HEIGHT_PX, TILE_WIDTH_PX = 16, 32


def count_smooth_tiles(height_px: int, width_px: int) -> int:
    """Return how many tiles a map is cut into: the length of one row of `tile_maxima`."""
    down, across = _count_tiles(height_px, width_px)
    return down * across


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """See `ndp_rt.kernels.op.SmoothForm`.

    Where a map holds NaN or infinity, its score is NaN; the smoothed map is then unspecified near that pixel.

    Attributes:
        size_px: 3 or 5.
        is_of_levels: whether it reads the three maps that `fuse_maps` reads, and does that too, or one map.

    Raises:
        InputError: another size.
    """

    size_px: int = SIZE_PX
    is_of_levels: bool = False

    def __post_init__(self) -> None:
        check_size(self.size_px)

    def enqueue(
        self,
        kernels: KernelSet,
        reads: Sequence[DeviceArray],
        smoothed: DeviceArray,
        tile_maxima: DeviceArray,
        *,
        stream: Any,
    ) -> None:
        if self.is_of_levels:
            check_levels(reads, "smoothed", smoothed)
        else:
            _check_map(reads, smoothed)
        n, _, h, w = smoothed.shape
        check_array("tile_maxima", tile_maxima, "float32", (n, count_smooth_tiles(h, w)))
        down, across = _count_tiles(h, w)
        entry = "smooth_levels" if self.is_of_levels else "smooth"
        kernel = kernels.function(FILE, entry, {"NDP_RT_SMOOTH_SIZE": self.size_px})
        addresses = (get_address(array) for array in (*reads, smoothed, tile_maxima))
        kernel((across, down, n), (BLOCK_THREADS,), (*addresses, np.int32(h), np.int32(w)), stream=stream)


def _check_map(reads: Sequence[DeviceArray], smoothed: DeviceArray) -> None:
    (maps,) = reads
    check_array("maps", maps, "float32", (None, 1, None, None))
    check_image_count("maps", maps.shape[0])
    check_array("smoothed", smoothed, "float32", maps.shape)
    check_apart("smoothed", smoothed, "maps", maps)


def _count_tiles(height_px: int, width_px: int) -> tuple[int, int]:
    return -(-height_px // TILE_HEIGHT_PX), -(-width_px // TILE_WIDTH_PX)

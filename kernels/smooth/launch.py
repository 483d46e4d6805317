"""smooth: the mean, then the median, of a map or of the weighted sum of three; and the maxima for the score."""

from collections.abc import Callable, Sequence
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


def smooth(
    kernels: KernelSet,
    maps: DeviceArray,
    out: DeviceArray,
    tile_maxima: DeviceArray,
    *,
    size_px: int = SIZE_PX,
    stream: Any,
) -> None:
    """Write maps after the mean and then the median of size x size pixels (borders replicated) to `out`.

    Where a map holds NaN or infinity, its score is NaN; the smoothed map is then unspecified near that pixel.

    Args:
        kernels: where the kernel comes from.
        maps: float32 [n, 1, h, w], device, dense.
        out: float32 [n, 1, h, w], device, dense; overwritten, never read; apart from `maps`.
        tile_maxima: float32 [n, count_smooth_tiles(h, w)], device, dense; overwritten: what `score` takes.
        size_px: 3 or 5.
        stream: the CuPy stream that owns `out`; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: the launch is refused.
    """
    check_array("maps", maps, "float32", (None, 1, None, None))
    check_image_count("maps", maps.shape[0])
    check_array("out", out, "float32", maps.shape)
    check_apart("out", out, "maps", maps)
    _launch(kernels, "smooth", size_px, (maps,), out, tile_maxima, stream)


def smooth_levels(
    kernels: KernelSet,
    am1: DeviceArray,
    am2: DeviceArray,
    am3: DeviceArray,
    out: DeviceArray,
    tile_maxima: DeviceArray,
    *,
    size_px: int = SIZE_PX,
    stream: Any,
) -> None:
    """Write AM_final after mean and median to `out`: fuse_maps and smooth in one.

    Args:
        kernels: where the kernel comes from.
        am1: float32 [n, 1, h, w], device, dense; h and w multiples of 4.
        am2: float32 [n, 1, h/2, w/2], device, dense.
        am3: float32 [n, 1, h/4, w/4], device, dense.
        out: float32 [n, 1, h, w], device, dense; overwritten, never read; apart from the maps.
        tile_maxima: as for `smooth`.
        size_px: as for `smooth`.
        stream: as for `smooth`.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: the launch is refused.
    """
    check_levels(am1, am2, am3, out)
    _launch(kernels, "smooth_levels", size_px, (am1, am2, am3), out, tile_maxima, stream)


def _launch(
    kernels: KernelSet,
    entry: str,
    size_px: int,
    sources: tuple[DeviceArray, ...],
    out: DeviceArray,
    tile_maxima: DeviceArray,
    stream: Any,
) -> None:
    check_size(size_px)
    n, _, h, w = out.shape
    check_array("tile_maxima", tile_maxima, "float32", (n, count_smooth_tiles(h, w)))
    down, across = _count_tiles(h, w)
    addresses = (get_address(array) for array in (*sources, out, tile_maxima))
    kernel = kernels.function(FILE, entry, {"NDP_RT_SMOOTH_SIZE": size_px})
    kernel((across, down, n), (BLOCK_THREADS,), (*addresses, np.int32(h), np.int32(w)), stream=stream)


def _count_tiles(height_px: int, width_px: int) -> tuple[int, int]:
    return -(-height_px // TILE_HEIGHT_PX), -(-width_px // TILE_WIDTH_PX)


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """See `ndp_rt.kernels.op.SmoothForm`: `launch` is `smooth`, for a map, or `smooth_levels`, for three levels."""

    launch: Callable[..., None] = smooth
    size_px: int = SIZE_PX

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
        self.launch(kernels, *reads, smoothed, tile_maxima, size_px=self.size_px, stream=stream)

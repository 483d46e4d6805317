"""The definition of smooth: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array
from ndp_rt.errors import InputError
from ndp_rt.program.program import SMOOTH_SIZES_PX

SIZE_PX = 5  # of NDP-Net's smoothing; the rule knows 3 too


def check_size(size_px: int) -> None:
    """Check the side of the windows.

    Raises:
        InputError: it is none of the rule's.
    """
    if size_px not in SMOOTH_SIZES_PX:
        raise InputError(f"smooth size: expected {' or '.join(map(str, SMOOTH_SIZES_PX))} px, got {size_px}.")


def _windows(maps: Array, size_px: int) -> Float64Array:
    """Return every window of maps [..., h, w], borders replicated: [..., h, w, size_px squared]."""
    margin = size_px // 2
    pad = [(0, 0)] * (maps.ndim - 2) + [(margin, margin)] * 2
    padded = np.pad(maps.astype(np.float64), pad, mode="edge")
    window = (1,) * (maps.ndim - 2) + (size_px, size_px)
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)  # [..., h, w, 1, ..., size, size]
    return windows.reshape(*maps.shape, size_px**2)


def smooth(maps: Array, size_px: int = SIZE_PX) -> Float64Array:
    """Return maps [..., h, w] after the mean and then the median of size x size pixels, borders replicated."""
    means = _windows(maps, size_px).mean(axis=-1)
    return np.asarray(np.median(_windows(means, size_px), axis=-1), np.float64)

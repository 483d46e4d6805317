"""The definition of smooth: NumPy, float64 inside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float64Array = NDArray[np.float64]

SMOOTH_SIZE_PX = 5


def _windows(maps: Array) -> Float64Array:
    """Return every 5 x 5 window of maps [..., h, w], borders replicated: [..., h, w, 25]."""
    margin = SMOOTH_SIZE_PX // 2
    pad = [(0, 0)] * (maps.ndim - 2) + [(margin, margin)] * 2
    padded = np.pad(maps.astype(np.float64), pad, mode="edge")
    window = (1,) * (maps.ndim - 2) + (SMOOTH_SIZE_PX, SMOOTH_SIZE_PX)
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)  # [..., h, w, 1, ..., 5, 5]
    return windows.reshape(*maps.shape, SMOOTH_SIZE_PX**2)


def smooth(maps: Array) -> Float64Array:
    """Return maps [..., h, w] after a 5 x 5 mean and then a 5 x 5 median, both with replicated borders."""
    return np.asarray(np.median(_windows(_windows(maps).mean(axis=-1)), axis=-1), np.float64)

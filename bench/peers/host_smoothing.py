"""Smoothing on the CPU, for rivals as for the inspector: OpenCV's filters, which are the fastest there."""

import numpy as np

from ndp_rt.bench.peers.base import Answer, FloatArray
from ndp_rt.kernels.smooth.host import smooth


class HostSmoother:
    """Smooths maps into memory of its own."""

    def __init__(self, batch: int, height_px: int, width_px: int) -> None:
        """Allocate for maps [batch, 1, height_px, width_px]."""
        self._maps = np.empty((batch, 1, height_px, width_px), np.float32)
        self._scores = np.empty(batch, np.float32)
        self._scratch = np.empty((height_px, width_px), np.float32)

    def __call__(self, maps: FloatArray) -> Answer:
        """Return smoothed maps and their largest values, in memory that the next call overwrites.

        Args:
            maps: float32, dense, of the size allocated for.
        """
        smooth(maps, self._maps, self._scratch)
        self._maps.max(axis=(1, 2, 3), out=self._scores)
        return self._maps, self._scores

"""The definition of score: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array


def score(smoothed: Array) -> Float64Array:
    """Return the image score [n]: the largest value of each smoothed map [n, ...], NaN where one is not finite."""
    values = smoothed.reshape(smoothed.shape[0], -1).astype(np.float64)
    largest: Float64Array = np.where(np.isfinite(values).all(axis=1), values.max(axis=1), np.nan)
    return largest

"""The definition of top_k_mean: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array


def top_k_mean(values: Array, k: int) -> Float64Array:
    """Return [n]: the mean of the k largest of values [n, ...], NaN where one of an image's values is not finite."""
    flat = values.reshape(values.shape[0], -1).astype(np.float64)
    largest = np.sort(flat, axis=1)[:, flat.shape[1] - k :]
    means: Float64Array = np.where(np.isfinite(flat).all(axis=1), largest.mean(axis=1), np.nan)
    return means

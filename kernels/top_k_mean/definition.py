"""The definition of top_k_mean: NumPy, float64 inside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float64Array = NDArray[np.float64]


def top_k_mean(values: Array, k: int) -> Float64Array:
    """Return [n]: the mean of the k largest of values [n, ...], NaN where one of an image's values is not finite."""
    flat = values.reshape(values.shape[0], -1).astype(np.float64)
    largest = np.sort(flat, axis=1)[:, flat.shape[1] - k :]
    means: Float64Array = np.where(np.isfinite(flat).all(axis=1), largest.mean(axis=1), np.nan)
    return means

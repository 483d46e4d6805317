"""The definition of nearest_neighbour: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array


def nearest_neighbour(features: Array, patches: Array) -> Float64Array:
    """Return the Euclidean distance of each position of features [n, c, h, w] from the nearest of patches [m, c].

    Returns:
        [n, 1, h, w].
    """
    distances = np.empty((len(features), 1, *features.shape[2:]))
    for single, row in zip(features.astype(np.float64), distances, strict=True):
        gaps = single[None] - patches.astype(np.float64)[:, :, None, None]  # [m, c, h, w]
        row[0] = np.sqrt(np.square(gaps).sum(axis=1).min(axis=0))
    return distances

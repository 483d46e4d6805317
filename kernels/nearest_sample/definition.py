"""The definition of nearest_sample: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array


def nearest_sample(features: Array, samples: Array) -> Float64Array:
    """Return |features - nearest sample|, [n, c, h, w].

    Args:
        features: [n, c, h, w].
        samples: [m, c, h, w]; the nearest has the least sum of absolute differences, and is the first of equals.
    """
    differences = []
    for single in features.astype(np.float64):
        gaps = np.abs(single - samples.astype(np.float64))
        differences.append(gaps[gaps.sum(axis=(1, 2, 3)).argmin()])
    return np.stack(differences)

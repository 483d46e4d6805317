"""The definition of rbfrm: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array

NORM_EPS = 1e-6  # smallest |p_i|: a patch of zeros has cosine 0 with everything


def split_patches(features: Array, size: int) -> Float64Array:
    """Cut features [n, c, h, w] into non-overlapping patches: [n, (h/K)(w/K), c K K], K = size."""
    n, c, h, w = features.shape
    x = features.astype(np.float64).reshape(n, c, h // size, size, w // size, size)
    patches: Float64Array = x.transpose(0, 2, 4, 1, 3, 5).reshape(n, (h // size) * (w // size), c * size * size)
    return patches


def join_patches(patches: Array, size: int, h: int, w: int) -> Float64Array:
    """Put patches [n, (h/K)(w/K), c K K] back in place: [n, c, h, w]."""
    n, _, length = patches.shape
    c = length // size**2
    x = patches.astype(np.float64).reshape(n, h // size, w // size, c, size, size)
    features: Float64Array = x.transpose(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)
    return features


def rbfrm(features: Array, reference: Array, size: int) -> Float64Array:
    """Rebuild features [n, c, h, w] from the patches of reference [1, c, h', w'] (eq. 3-5); returns [n, c, h, w]."""
    b = split_patches(reference, size)[0]  # [M, L]
    p = split_patches(features, size)  # [n, N, L]
    b_unit = b / np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), NORM_EPS)
    p_unit = p / np.maximum(np.linalg.norm(p, axis=-1, keepdims=True), NORM_EPS)
    weights = np.exp(p_unit @ b_unit.T)  # [n, N, M]; cosines are bounded, so exp needs no maximum
    repaired = (weights / weights.sum(axis=-1, keepdims=True)) @ b  # [n, N, L]
    return join_patches(repaired, size, features.shape[2], features.shape[3])

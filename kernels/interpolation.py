"""Resizing one axis as a product with a matrix: what the definitions of preprocess and fuse_maps are made of."""

import numpy as np

from ndp_rt.arrays import Float64Array


def weigh_linear(source: int, target: int) -> Float64Array:
    """Return the [target, source] matrix of linear interpolation on one axis: half-pixel centres, borders held."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, source - 1)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), low), 1 - (position - low))
    np.add.at(matrix, (np.arange(target), high), position - low)
    return matrix


def weigh_area(source: int, target: int) -> Float64Array:
    """Return the [target, source] matrix of one axis whose target pixels are the means of what they cover."""
    low = np.arange(target)[:, None] * source  # in units of 1 / target of a source pixel
    pixel = np.arange(source)[None, :] * target
    cover = np.minimum(low + source, pixel + target) - np.maximum(low, pixel)
    weights: Float64Array = np.maximum(cover, 0) / source
    return weights

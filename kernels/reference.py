"""What correct means for every kernel: NumPy, float64 inside, no cleverness. Results are float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float64Array = NDArray[np.float64]

MAP_WEIGHTS = (0.2, 0.2, 0.6)  # eq. 11
NORM_EPS = 1e-6  # smallest |p_i|: a patch of zeros has cosine 0 with everything
SMOOTH_SIZE_PX = 5


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


def upsample_bilinear(level_map: Array, h: int, w: int) -> Float64Array:
    """Resize [n, c, h', w'] to [n, c, h, w], half-pixel centres, borders held."""
    rows, columns = weigh_linear(level_map.shape[2], h), weigh_linear(level_map.shape[3], w)
    resized: Float64Array = rows @ level_map.astype(np.float64) @ columns.T
    return resized


def preprocess(
    image: Array, height_px: int, width_px: int, *, channels: str = "rgb", white_level_16bit: int = 65535
) -> Float64Array:
    """Return the network's input [3, h, w], 0 to 1, from an image: the rule `area-or-linear-v1` of
    `ndp_rt.images.preprocess`.

    OpenCV leaves covers below 1e-3 of a pixel out of a mean, which happens where more than 1000 pixels are left; here
    every cover counts.

    Args:
        image: uint8 or uint16, [h', w'], [h', w', 1], [h', w', 3] or, with "drop-alpha", [h', w', 4].
        height_px: h.
        width_px: w.
        channels: one of `ndp_rt.images.checks.CHANNELS`.
        white_level_16bit: the uint16 value that becomes 1; larger ones are cut to it before resizing.
    """
    white = 255 if image.dtype == np.uint8 else white_level_16bit
    pixels = image[..., None] if image.ndim == 2 else image[..., :3]
    planes = np.minimum(pixels.transpose(2, 0, 1), white).astype(np.float64)
    rows, columns = (
        weigh_area(source, target) if source > target else weigh_linear(source, target)
        for source, target in zip(planes.shape[1:], (height_px, width_px), strict=True)
    )
    resized: Float64Array = rows @ planes @ columns.T / white
    if channels == "bgr":
        resized = resized[::-1]
    colours: Float64Array = np.broadcast_to(resized, (3, height_px, width_px)).copy()
    return colours


def fuse_maps(maps: Sequence[Array]) -> Float64Array:
    """Return AM_final [n, 1, h, w], not yet smoothed, from AM_1 to AM_3, the first at full size (eq. 11)."""
    h, w = maps[0].shape[2:]
    total = np.zeros(maps[0].shape, np.float64)
    for weight, level_map in zip(MAP_WEIGHTS, maps, strict=True):
        total += weight * upsample_bilinear(level_map, h, w)
    return total


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


def score(smoothed: Array) -> Float64Array:
    """Return the image score [n]: the largest value of each smoothed map [n, ...], NaN where one is not finite."""
    values = smoothed.reshape(smoothed.shape[0], -1).astype(np.float64)
    largest: Float64Array = np.where(np.isfinite(values).all(axis=1), values.max(axis=1), np.nan)
    return largest


def threshold(maps: Array, limits: Array) -> NDArray[np.uint8]:
    """Return 1 where maps [n, ..., h, w] reach the limit of their image, limits [n], and 0 elsewhere and at NaN."""
    return (maps >= limits.reshape(-1, *[1] * (maps.ndim - 1))).astype(np.uint8)

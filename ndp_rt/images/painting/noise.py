"""Random numbers and smooth random fields that artificial defects are drawn with."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2


def clip_image(values: npt.NDArray[Any]) -> FloatArray:
    """Return values clipped to [0, 1], float32."""
    clipped: FloatArray = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number between low and high whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_noise(rng: np.random.Generator, height: int, width: int, cell_px: float, octave_count: int = 1) -> FloatArray:
    """Return smooth noise [height, width], float32, about -2 to 2.

    Random numbers on a grid, joined by cubic curves: as good here as Perlin's gradient noise, and much faster.

    Args:
        rng: the only source of chance.
        height, width: of the field.
        cell_px: distance of the grid's points.
        octave_count: fields that are summed, each of half the cells and half the strength of the one before.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octave_count):
        step = max(1.0, cell_px / 2**octave)
        rows, columns = (int(np.ceil(size / step)) + 3 for size in (height, width))
        grid = rng.standard_normal((rows, columns)).astype(np.float32) * np.float32(0.5**octave)
        shift = rng.uniform(0.0, 1.0, 2)
        # Output pixel x lies at grid point 1 + shift + x / step.
        matrix = np.array([[1 / step, 0, 1 + shift[0]], [0, 1 / step, 1 + shift[1]]], np.float64)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += cv2.warpAffine(grid, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return total


def draw_curve(rng: np.random.Generator, count: int, cell: float, octave_count: int = 1) -> FloatArray:
    """Return smooth noise [count] of one axis, as draw_noise does of two."""
    return np.ascontiguousarray(draw_noise(rng, 1, count, cell, octave_count)[0])


def soften(rng: np.random.Generator, mask: npt.NDArray[Any], narrowest_px: float, widest_px: float) -> FloatArray:
    """Return a mask [h, w] with soft edges of a random width: float32, 0 to 1."""
    sigma = log_uniform(rng, narrowest_px, widest_px)
    return clip_image(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma))


def smooth(image: FloatArray, sigma_px: float) -> FloatArray:
    """Return an image [h, w, c] smoothed by a Gaussian, mirrored at the borders."""
    smoothed: FloatArray = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return smoothed.reshape(image.shape)

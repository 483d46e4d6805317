"""Mild changes that a line shows from lot to lot, in light, focus and position: the same for every image."""

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.images.opencv import cv2

SIDE_PX = 256  # lengths below are for an image with this longer side, and grow with it
BLUR_SIGMA_PX = 0.5
CUT_PX = 6.0
LIGHT = 0.06
CONTRAST = 0.06


def vary(image: FloatArray) -> FloatArray:
    """Return an image darker, brighter, with less and more contrast, out of focus, and moved both ways.

    An image is moved by cutting two of its sides off and enlarging the rest. Mirroring or repeating the border instead
    would break a weave, and look like a defect.

    Args:
        image: the network's input, float32 [3, h, w], 0 to 1.

    Returns:
        float32 [7, 3, h, w], 0 to 1.
    """
    mean = image.mean(axis=(1, 2), keepdims=True)
    rows, columns = (min(round(CUT_PX * max(image.shape) / SIDE_PX), side - 1) for side in image.shape[1:])
    varied = [
        image * np.float32(1.0 - LIGHT),
        image * np.float32(1.0 + LIGHT),
        (image - mean) * np.float32(1.0 - CONTRAST) + mean,
        (image - mean) * np.float32(1.0 + CONTRAST) + mean,
        _blur(image),
        _enlarge(image[:, rows:, columns:], image.shape),
        _enlarge(image[:, : image.shape[1] - rows, : image.shape[2] - columns], image.shape),
    ]
    return np.stack(varied).clip(0.0, 1.0)


def vary_mask(mask: BoolArray) -> list[BoolArray]:
    """Return a mask [h, w] of an image for each of its variations, moved with the picture."""
    h, w = mask.shape
    rows, columns = (min(round(CUT_PX * max(h, w) / SIDE_PX), side - 1) for side in (h, w))
    moved = [
        _enlarge(part.astype(np.float32)[np.newaxis], (1, h, w))[0] > np.float32(0.5)
        for part in (mask[rows:, columns:], mask[: h - rows, : w - columns])
    ]
    return [mask] * 5 + moved


def vary_a_little(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Return an image [3, h, w] with light, contrast and position changed by chance, within what `vary` shows."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    changed = (image - mean) * np.float32(1.0 + rng.uniform(-CONTRAST, CONTRAST)) + mean
    changed = (changed * np.float32(1.0 + rng.uniform(-LIGHT, LIGHT))).clip(0.0, 1.0)
    _, h, w = image.shape
    cuts = [min(round(CUT_PX * max(h, w) / SIDE_PX), side - 1) for side in (h, w)]
    (top, bottom), (left, right) = (rng.integers(0, cut + 1, 2) for cut in cuts)
    inner = changed[:, min(top, h - 1 - bottom) : h - bottom, min(left, w - 1 - right) : w - right]
    return _enlarge(inner, image.shape)


def _blur(image: FloatArray) -> FloatArray:
    sigma_px = BLUR_SIGMA_PX * max(image.shape[1:]) / SIDE_PX
    return np.stack([cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101) for plane in image])


def _enlarge(image: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    _, h, w = shape
    return np.stack([cv2.resize(np.ascontiguousarray(plane), (w, h)) for plane in image])  # bilinear

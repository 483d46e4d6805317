"""MemSeg's simulated anomalies (Yang et al. 2023, after DRAEM): Perlin noise says where, a texture or the image what.

Where an object has a background the authors multiply the mask by one of the object. **Choice**: not here; what is
inspected are surfaces, which fill the image.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.images.painting.noise import clip_image

LARGEST_EXPONENT = 5  # of the noise's cells a side, a power of two
THRESHOLD = 0.5  # of the noise: above it lies the anomaly
LARGEST_TURN = 90.0  # degrees of the mask, both ways
SOURCE_TURN = 45.0  # degrees of a structure's image, both ways
CELLS = (4, 8)  # that a structure's image is cut into: down, across
STRENGTHS = (0.15, 1.0)
ATTEMPTS = 8  # of drawing a mask that is not empty

Source = Callable[[np.random.Generator, FloatArray], FloatArray]  # image [h, w, c] -> what is put in, of the same shape


def simulate_anomaly(rng: np.random.Generator, image: FloatArray, source: Source) -> tuple[FloatArray, BoolArray]:
    """Return the image with an anomaly, and its mask.

    Args:
        rng: the only source of chance.
        image: float32 [h, w, c], 0 to 1; not written.
        source: what is put in.

    Returns:
        float32 [h, w, c] and bool [h, w]; rarely the image itself and an empty mask.
    """
    mask = draw_mask(rng, *image.shape[:2])
    strength = np.float32(rng.uniform(*STRENGTHS))
    blended = image + (source(rng, image) - image) * (strength * mask[:, :, None])
    return clip_image(blended), mask


def draw_mask(rng: np.random.Generator, height: int, width: int) -> BoolArray:
    """Return where Perlin noise of a random scale, turned, is above THRESHOLD."""
    mask = np.zeros((height, width), np.bool_)
    for _ in range(ATTEMPTS):
        rows, columns = (2 ** int(exponent) for exponent in rng.integers(0, LARGEST_EXPONENT + 1, 2))
        noise = draw_perlin(rng, height, width, rows, columns)
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-LARGEST_TURN, LARGEST_TURN), 1.0)
        mask = cv2.warpAffine(noise, turn, (width, height)) > THRESHOLD
        if mask.any():
            break
    return mask


def draw_perlin(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> FloatArray:
    """Return Perlin's gradient noise [height, width] of rows x columns cells, float32, about -1 to 1."""
    angles = rng.uniform(0.0, 2.0 * np.pi, (rows + 1, columns + 1))
    slopes = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    (row, down), (column, across) = _split_axis(height, rows), _split_axis(width, columns)

    def from_corner(below: int, right: int) -> npt.NDArray[np.float32]:
        slope_y, slope_x = (slope[row + below][:, column + right] for slope in slopes)
        gradient: npt.NDArray[np.float32] = slope_y * (down - below)[:, None] + slope_x * (across - right)
        return gradient

    fade_y, fade_x = _fade(down)[:, None], _fade(across)
    top, bottom = (from_corner(below, 0) * (1 - fade_x) + from_corner(below, 1) * fade_x for below in (0, 1))
    noise: FloatArray = np.float32(np.sqrt(2.0)) * (top * (1 - fade_y) + bottom * fade_y)
    return noise


def _split_axis(length: int, cells: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return each pixel's cell, and where in it the pixel lies, 0 to 1."""
    place = np.arange(length) * (cells / length)
    cell = place.astype(np.intp)
    return cell, (place - cell).astype(np.float32)


def _fade(place: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return place**3 * (place * (place * 6 - 15) + 10)


def take_structure(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Return the image mirrored, turned, with other brightness, saturation and hue, cut into CELLS and shuffled."""
    height, width = image.shape[:2]
    changed = image[:, ::-1] if rng.random() < 0.5 else image
    changed = changed[::-1] if rng.random() < 0.5 else changed
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-SOURCE_TURN, SOURCE_TURN), 1.0)
    changed = np.ascontiguousarray(changed)
    changed = cv2.warpAffine(changed, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101).reshape(image.shape)
    changed = clip_image(_change_colour(rng, changed) * rng.uniform(0.8, 1.2) + rng.uniform(-0.12, 0.12))
    return _shuffle_cells(rng, changed)


def _change_colour(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    hue, saturation = rng.uniform(0.0, 360.0), rng.uniform(0.5, 1.5)
    if image.shape[2] == 1:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue 0 to 360, the others 0 to 1
    hsv[:, :, 0] = (hsv[:, :, 0] + hue) % 360.0
    hsv[:, :, 1] = np.clip(hsv[:, :, 1] * saturation, 0.0, 1.0)
    coloured: FloatArray = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return coloured


def _shuffle_cells(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Return the image with its cells in another order; rows and columns that no whole cell holds stay."""
    down, across = CELLS
    h, w = image.shape[0] // down, image.shape[1] // across
    shuffled: FloatArray = image.copy()
    for target, source in enumerate(rng.permutation(down * across)):
        (y, x), (from_y, from_x) = divmod(target, across), divmod(int(source), across)
        cell = image[from_y * h : (from_y + 1) * h, from_x * w : (from_x + 1) * w]
        shuffled[y * h : (y + 1) * h, x * w : (x + 1) * w] = cell
    return shuffled

"""Artificial defects: Perlin-noise masks filled from another image (eq. 1, after DRAEM).

The paper draws one kind of mask, thresholded noise over the whole image. Real defects can cover 0.03 % of an image or
run through it as a thin line, so three kinds are drawn here, all shaped by Perlin noise: **choice**.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
TextureSource = Callable[[np.random.Generator, int, int], FloatArray]

LATTICE_CELLS = 64  # the gradient lattice repeats after so many cells, more than any mask spans
SMALLEST_AREA_PX = 8
SHORTEST_LINE_PX = 8.0
LARGEST_SHADE = 0.5  # change of brightness, in image units


@dataclass(frozen=True, kw_only=True)
class DefectSettings:
    """Settings of artificial defects; shares are probabilities, areas fractions of the image.

    Raises:
        ValueError: a number out of its range.
    """

    defect_free_share: float = 0.25  # images left whole, so that training sees good surfaces as they are
    blob_share: float = 0.45  # one compact blot
    line_share: float = 0.4  # one thin line: crack, scratch, thread; the rest is noise over the whole image
    texture_share: float = 0.4  # filled from the texture images
    shade_share: float = 0.4  # darkened or brightened only; the rest is the image itself, altered
    darker_share: float = 0.55  # of those
    largest_area: float = 0.08  # of a blot
    shortest_line: float = 0.0  # of the image's longer side; never below SHORTEST_LINE_PX
    smallest_opacity: float = 0.3
    smallest_shade: float = 0.08  # change of brightness, in image units
    smallest_change: float = 0.03  # a pixel whose neighbourhood changed by less is not labelled

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"DefectSettings.{name}: expected 0 to 1, got {value}.")
        if self.largest_area == 0.0:
            raise ValueError("DefectSettings.largest_area: expected a number above 0, got 0.0.")
        if not 0.0 < self.smallest_shade <= LARGEST_SHADE:
            raise ValueError(
                f"DefectSettings.smallest_shade: expected above 0, up to {LARGEST_SHADE}, got {self.smallest_shade}."
            )


def perlin(rng: np.random.Generator, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return Perlin's gradient noise at coordinates in cells: float32, their broadcast shape, about -0.7 to 0.7."""
    angle = rng.uniform(0.0, 2.0 * np.pi, (LATTICE_CELLS, LATTICE_CELLS)).astype(np.float32)
    gradient_x, gradient_y = np.cos(angle), np.sin(angle)
    x, y = np.broadcast_arrays(x, y)
    cell_x, cell_y = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    dx, dy = x - cell_x, y - cell_y
    fade_x, fade_y = (d * d * d * (d * (d * 6.0 - 15.0) + 10.0) for d in (dx, dy))

    def corner(step_x: int, step_y: int) -> FloatArray:
        at = ((cell_y + step_y) % LATTICE_CELLS, (cell_x + step_x) % LATTICE_CELLS)
        value: FloatArray = gradient_x[at] * (dx - step_x) + gradient_y[at] * (dy - step_y)
        return value

    top = corner(0, 0) * (1.0 - fade_x) + corner(1, 0) * fade_x
    bottom = corner(0, 1) * (1.0 - fade_x) + corner(1, 1) * fade_x
    noise: FloatArray = (top * (1.0 - fade_y) + bottom * fade_y).astype(np.float32)
    return noise


def fractal_noise(rng: np.random.Generator, x: FloatArray, y: FloatArray, octave_count: int) -> FloatArray:
    """Return a sum of Perlin noises, each of half the size and 0.55 of the strength of the one before."""
    total = perlin(rng, x, y)
    for octave in range(1, octave_count):
        total = total + 0.55**octave * perlin(rng, x * 2.0**octave, y * 2.0**octave)
    return total


def clip_image(values: npt.NDArray[Any]) -> FloatArray:
    """Return values clipped to [0, 1], float32."""
    clipped: FloatArray = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number between low and high whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def axes(rng: np.random.Generator, height: int, width: int) -> tuple[FloatArray, FloatArray, float]:
    """Return pixel coordinates turned about a random point, and the angle; half of the angles are upright."""
    angle = rng.uniform(0.0, np.pi)
    if rng.random() < 0.4:
        angle = float(rng.integers(2)) * np.pi / 2.0 + rng.normal(0.0, 0.05)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(rng.uniform(0, height))
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(rng.uniform(0, width))
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x, float(angle)


def blob_mask(rng: np.random.Generator, height: int, width: int, area_px: float) -> BoolArray:
    """Return a mask of one ragged blot [height, width] of about area_px pixels, where it is not cut by the border."""
    radius = np.sqrt(area_px / np.pi)
    stretch = np.sqrt(log_uniform(rng, 1.0, 5.0))
    along, across, _ = axes(rng, height, width)
    distance = np.hypot(along / np.float32(stretch), across * np.float32(stretch)) / np.float32(radius)
    near = distance < 2.5
    mask = np.zeros((height, width), np.bool_)
    cell_px = radius * rng.uniform(0.6, 1.6)
    rows, columns = np.nonzero(near)
    noise = fractal_noise(rng, along[rows, columns] / cell_px + 30.0, across[rows, columns] / cell_px + 30.0, 2)
    ragged = distance[rows, columns] + np.float32(rng.uniform(0.3, 1.4)) * noise
    mask[rows, columns] = ragged < 1.0
    return mask


def line_mask(rng: np.random.Generator, height: int, width: int, shortest_px: float = SHORTEST_LINE_PX) -> BoolArray:
    """Return a mask [height, width] of a thin line, 1 to 7 px wide, some with branches, straight or winding."""
    side = max(height, width)
    along, across, _ = axes(rng, height, width)
    length_px = log_uniform(rng, shortest_px, 2.0 * side)
    width_px = min(log_uniform(rng, 1.2, 7.0), length_px / 2.5)
    mask = _winding_line(rng, along, across, width_px) & (np.abs(along) < length_px / 2.0)
    while rng.random() < 0.3:
        turn = rng.uniform(0.4, 2.6)
        cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        side_along, side_across = cosine * along + sine * across, cosine * across - sine * along
        branch = _winding_line(rng, side_along, side_across, max(1.2, width_px * 0.7))
        mask |= branch & (side_along > 0.0) & (side_along < length_px / 2.0)
    return mask


def _winding_line(rng: np.random.Generator, along: FloatArray, across: FloatArray, width_px: float) -> BoolArray:
    """Return where the noise-bent line across = 0 runs; the distance is divided by its gradient for an even width."""
    cell_px = log_uniform(rng, 12.0, 120.0)
    bend = fractal_noise(rng, along / cell_px + 30.0, across / (3.0 * cell_px) + 30.0, 4)
    bent = across + np.float32(cell_px * rng.uniform(0.0, 0.6)) * (bend - _at_origin(bend, along, across))
    slope_y, slope_x = np.gradient(bent)
    distance = np.abs(bent) / np.maximum(np.hypot(slope_x, slope_y), 0.5)
    uneven = 1.0 + rng.uniform(0.0, 0.9) * perlin(rng, along / 9.0 + 30.0, across / 30.0 + 30.0)
    line: BoolArray = distance < width_px / 2.0 * uneven
    return line


def _at_origin(field: FloatArray, along: FloatArray, across: FloatArray) -> np.float32:
    """Return the field at the pixel nearest the turned axes' origin."""
    value: np.float32 = field.flat[int(np.argmin(along**2 + across**2))]
    return value


def noise_mask(rng: np.random.Generator, height: int, width: int) -> BoolArray:
    """Return thresholded Perlin noise over the whole image (DRAEM's mask), 1 to 25 % of it."""
    along, across, _ = axes(rng, height, width)
    cell_along, cell_across = (max(height, width) / log_uniform(rng, 1.0, 12.0) for _ in range(2))
    noise = fractal_noise(rng, along / cell_along + 30.0, across / cell_across + 30.0, 2)
    mask: BoolArray = noise > np.quantile(noise, 1.0 - log_uniform(rng, 0.01, 0.25))
    return mask


def draw_mask(rng: np.random.Generator, height: int, width: int, settings: DefectSettings) -> BoolArray:
    """Return a random mask [height, width] of one to three defects of one kind, never empty."""
    kind = rng.random()
    mask = np.zeros((height, width), np.bool_)
    while not mask.any():
        if kind < settings.blob_share:
            largest_px = max(SMALLEST_AREA_PX, settings.largest_area * height * width)
            area_px = log_uniform(rng, SMALLEST_AREA_PX, largest_px)
            for _ in range(1 + int(rng.integers(3)) * (area_px < 0.004 * height * width)):
                mask |= blob_mask(rng, height, width, area_px)
        elif kind < settings.blob_share + settings.line_share:
            shortest_px = max(SHORTEST_LINE_PX, settings.shortest_line * max(height, width))
            mask = line_mask(rng, height, width, shortest_px)
        else:
            mask = noise_mask(rng, height, width)
    return mask


def draw_fill(
    rng: np.random.Generator, image: FloatArray, textures: TextureSource, settings: DefectSettings
) -> FloatArray:
    """Return what a mask is filled with: float32, like image [h, w, c], 0 to 1; c = 1 gets grey fills."""
    height, width, channels = image.shape
    kind = rng.random()
    if kind < settings.texture_share:
        fill = textures(rng, height, width)
        if channels == 1:
            fill = fill.mean(axis=2, keepdims=True)
        elif rng.random() < 0.5:  # colour alone would give the defect away
            grey = fill.mean(axis=2, keepdims=True)
            fill = grey + (fill - grey) * rng.uniform(0.0, 0.5) + (image.mean(axis=(0, 1)) - image.mean())
        if rng.random() < 0.4:  # the surface's own brightness and contrast: only the structure differs
            fill = (fill - fill.mean()) * (image.std() * rng.uniform(0.5, 2.0) / (fill.std() + 1e-3)) + image.mean()
            fill = fill + np.float32(rng.normal(0.0, 0.1))
        return clip_image(fill)
    if kind < settings.texture_share + settings.shade_share:
        return _shade(rng, image, settings)
    altered = np.rot90(image, int(rng.integers(4))) if height == width else image[::-1, ::-1]
    zoom = log_uniform(rng, 0.5, 3.0)
    middle = (width * rng.random(), height * rng.random())
    matrix = cv2.getRotationMatrix2D(middle, rng.uniform(0.0, 360.0), zoom)
    altered = cv2.warpAffine(np.ascontiguousarray(altered), matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    altered = altered.reshape(image.shape) * np.float32(rng.uniform(0.6, 1.5)) + np.float32(rng.normal(0.0, 0.08))
    return clip_image(altered)


def _shade(rng: np.random.Generator, image: FloatArray, settings: DefectSettings) -> FloatArray:
    """Return the image darker or brighter by a random amount, its contrast changed, some of it smeared or tinted."""
    fill = image
    if rng.random() < 0.4:
        sigma = log_uniform(rng, 0.7, 6.0)
        fill = cv2.GaussianBlur(fill, (0, 0), sigma).reshape(image.shape)
    mean = fill.mean(axis=(0, 1), keepdims=True)
    shift = log_uniform(rng, settings.smallest_shade, LARGEST_SHADE)
    shift *= 1.0 if rng.random() < 1.0 - settings.darker_share else -1.0
    tint = np.ones(image.shape[2]) if rng.random() < 0.7 else rng.uniform(0.4, 1.2, image.shape[2])
    fill = (fill - mean) * rng.uniform(0.3, 1.2) + mean + shift * tint
    return clip_image(fill)


def paint_spots(
    rng: np.random.Generator, image: FloatArray, textures: TextureSource, settings: DefectSettings
) -> FloatArray:
    """Return the image [h, w, c] with harmless blots: what a surface shows when it is good all the same."""
    height, width = image.shape[:2]
    for _ in range(1 + int(rng.integers(5))):
        if rng.random() < 0.2:
            mask = noise_mask(rng, height, width)
        else:
            mask = blob_mask(rng, height, width, log_uniform(rng, SMALLEST_AREA_PX, 0.1 * height * width))
        alpha = mask.astype(np.float32)
        if rng.random() < 0.6:
            alpha = cv2.GaussianBlur(alpha, (0, 0), log_uniform(rng, 0.5, 8.0))
        alpha *= np.float32(rng.uniform(0.3, 1.0))
        fill = draw_fill(rng, image, textures, settings)
        image = clip_image(image * (1.0 - alpha[:, :, None]) + fill * alpha[:, :, None])
    return image


def paint_defect(
    rng: np.random.Generator, image: FloatArray, textures: TextureSource, settings: DefectSettings
) -> tuple[FloatArray, BoolArray]:
    """Return the image with an artificial defect, and the mask of the pixels that changed (eq. 1).

    Args:
        rng: the only source of chance.
        image: float32 [h, w, c], 0 to 1, c = 1 or 3; not written.
        textures: gives float32 [h, w, 3] of a texture for (rng, h, w).
        settings: kinds and sizes.

    Returns:
        float32 [h, w, c], equal to `image` wherever the drawn mask is 0, and bool [h, w]; for a share of the
        calls the image itself and an empty mask.
    """
    height, width = image.shape[:2]
    empty = np.zeros((height, width), np.bool_)
    if rng.random() < settings.defect_free_share:
        return image, empty
    for _ in range(4):  # a fill may look like the surface; then another is drawn
        mask = draw_mask(rng, height, width, settings)
        alpha = mask.astype(np.float32)
        if rng.random() < 0.5:
            alpha = cv2.GaussianBlur(alpha, (0, 0), log_uniform(rng, 0.4, 1.5)) * mask
        alpha *= np.float32(rng.uniform(settings.smallest_opacity, 1.0) if rng.random() < 0.7 else 1.0)
        fill = draw_fill(rng, image, textures, settings)
        painted = image * (1.0 - alpha[:, :, None]) + fill * alpha[:, :, None]
        change = cv2.blur(np.abs(painted - image).max(axis=2), (3, 3))
        label: BoolArray = mask & (change > settings.smallest_change)
        if label.sum() >= SMALLEST_AREA_PX // 2:
            return painted.astype(np.float32), label
    return image, empty

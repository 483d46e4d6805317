"""Kinds of artificial defects: each gives what is painted and how strongly at each pixel.

Strengths are relative to the surface's own contrast, so that they mean the same on faint paper and on coarse asphalt,
in 8 bits and in 16. Two sets: TRAINING, and UNSEEN of other shapes and fills, to judge a trained model by.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.images.painting import masks
from ndp_rt.images.painting.noise import log_uniform, smooth, soften

TextureSource = Callable[[np.random.Generator, int, int], FloatArray]  # (rng, h, w) -> float32 [h, w, 3], 0 to 1

LARGEST_SHADE = 0.5  # change of brightness, in image units
SMALLEST_CONTRAST = 0.006  # of an even surface: its noise and the steps of 8 bits


class Surface(NamedTuple):
    """A good image that a defect is painted into."""

    image: FloatArray  # [h, w, c], 0 to 1, c = 1 or 3
    textures: TextureSource
    contrast: float  # standard deviation of its fine structure

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


class Fill(NamedTuple):
    """What is painted over an image [h, w, c], and how strongly [h, w], 0 to 1."""

    image: npt.NDArray[np.floating]
    alpha: npt.NDArray[np.generic]


Kind = Callable[[np.random.Generator, Surface], Fill]


def measure_contrast(image: FloatArray) -> float:
    """Return the standard deviation of an image's fine structure, with a little of that of its shading."""
    grey = image.mean(axis=2)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), max(1.0, min(grey.shape) / 12))
    return float(np.sqrt(fine.var() + 0.1 * grey.var())) + SMALLEST_CONTRAST


def _draw_shift(rng: np.random.Generator, surface: Surface) -> float:
    """Return a change of brightness, more often darker than brighter."""
    size = min(LARGEST_SHADE, log_uniform(rng, 0.8, 12.0) * surface.contrast)
    return size if rng.random() < 0.45 else -size


def _draw_tint(rng: np.random.Generator, surface: Surface, share: float) -> FloatArray:
    """Return factors of the channels, all 1 but for a share of the calls with colour images."""
    channels = surface.image.shape[2]
    if channels == 1 or rng.random() > share:
        return np.ones(channels, np.float32)
    tint = rng.uniform(-0.6, 1.0, channels)
    scaled: FloatArray = (tint / np.abs(tint).max()).astype(np.float32)
    return scaled


def _move(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Return the image turned, mirrored, zoomed and displaced."""
    height, width = image.shape[:2]
    moved = np.rot90(image, int(rng.integers(4))) if height == width else image[::-1, ::-1]
    if rng.random() < 0.5:
        moved = moved[:, ::-1]
    zoom = log_uniform(rng, 0.6, 2.0) if rng.random() < 0.6 else 1.0
    turn = rng.uniform(0.0, 360.0) if rng.random() < 0.7 else 0.0
    matrix = cv2.getRotationMatrix2D((width * rng.random(), height * rng.random()), turn, zoom)
    matrix[:, 2] += rng.uniform(-0.4, 0.4, 2) * [width, height]
    moved = np.ascontiguousarray(moved)
    warped: FloatArray = cv2.warpAffine(moved, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    return warped.reshape(image.shape)


def texture(rng: np.random.Generator, surface: Surface) -> Fill:
    """Fill with another texture, some with the surface's own colour, brightness and contrast."""
    image, (h, w) = surface.image, surface.size
    fill = surface.textures(rng, h, w)
    if image.shape[2] == 1:
        fill = fill.mean(axis=2, keepdims=True)
    elif rng.random() < 0.5:  # colour alone would give the defect away
        grey = fill.mean(axis=2, keepdims=True)
        fill = grey + (fill - grey) * rng.uniform(0.0, 0.5) + (image.mean(axis=(0, 1)) - image.mean())
    if rng.random() < 0.6:
        fill = (fill - fill.mean()) * (image.std() * rng.uniform(0.5, 2.0) / (fill.std() + 1e-3)) + image.mean()
        fill = fill + rng.normal(0.0, 2.0 * surface.contrast)
    mask = masks.any_shape(rng, h, w)
    return Fill(fill, soften(rng, mask, 0.4, 1.5) * mask if rng.random() < 0.5 else mask)


def shade(rng: np.random.Generator, surface: Surface) -> Fill:
    """Make it darker or brighter, with less of its contrast."""
    image = surface.image
    mask = masks.any_shape(rng, *surface.size)
    mean = smooth(image, 6.0) if rng.random() < 0.5 else image.mean(axis=(0, 1), keepdims=True)
    change = _draw_shift(rng, surface) * _draw_tint(rng, surface, 0.4)
    fill = (image - mean) * rng.uniform(0.3, 1.2) + mean + change
    return Fill(fill, soften(rng, mask, 0.4, 1.5) if rng.random() < 0.6 else mask)


def piece(rng: np.random.Generator, surface: Surface) -> Fill:
    """Put a displaced, turned or mirrored piece of the surface in."""
    mask = masks.area(rng, *surface.size, 0.002, 0.3)
    fill = _move(rng, surface.image)
    if rng.random() < 0.3:
        fill = fill * np.float32(rng.uniform(0.8, 1.25))
    return Fill(fill, soften(rng, mask, 0.5, 2.0) if rng.random() < 0.6 else mask)


def blur(rng: np.random.Generator, surface: Surface) -> Fill:
    """Take structure away, as glue, grease and wear do."""
    mask = masks.area(rng, *surface.size, 0.002, 0.4)
    fill = smooth(surface.image, log_uniform(rng, 1.2, 10.0))
    if rng.random() < 0.4:
        fill = fill + 0.4 * _draw_shift(rng, surface) * _draw_tint(rng, surface, 0.4)
    if rng.random() < 0.3:
        noise = rng.normal(0.0, surface.contrast * rng.uniform(0.1, 0.5), fill.shape)
        fill = fill + noise.astype(np.float32)
    return Fill(fill, soften(rng, mask, 0.6, 4.0))


def smear(rng: np.random.Generator, surface: Surface) -> Fill:
    """Smear it along a direction."""
    mask = masks.area(rng, *surface.size, 0.002, 0.3)
    size = 2 * int(rng.integers(2, 13)) + 1
    kernel = np.zeros((size, size), np.float32)
    turn, middle = rng.uniform(0.0, np.pi), (size - 1) / 2
    end = middle * np.array([np.cos(turn), np.sin(turn)])
    points = [np.rint(middle + sign * end).astype(int).tolist() for sign in (-1, 1)]
    cv2.line(kernel, points[0], points[1], 1.0)
    fill = cv2.filter2D(surface.image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    return Fill(fill.reshape(surface.image.shape), soften(rng, mask, 0.5, 3.0))


def stain(rng: np.random.Generator, surface: Surface) -> Fill:
    """Colour or darken a patch with soft edges, up to half of the image; the structure shows through."""
    image, (h, w) = surface.image, surface.size
    alpha = soften(rng, masks.area(rng, h, w, 0.002, 0.5), 1.0, 0.04 * max(h, w) + 1.1)
    tint = _draw_tint(rng, surface, 0.7)
    if rng.random() < 0.5:
        return Fill(image * (1.0 + np.float32(rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.6)) * tint), alpha)
    return Fill(image + _draw_shift(rng, surface) * tint, alpha)


def scratch(rng: np.random.Generator, surface: Surface) -> Fill:
    """Draw a crack, scratch or thread; some have a bright edge."""
    mask = masks.line(rng, *surface.size)
    base = smooth(surface.image, log_uniform(rng, 1.0, 5.0)) if rng.random() < 0.6 else surface.image
    change = _draw_shift(rng, surface) * _draw_tint(rng, surface, 0.25)
    fill, alpha = base + change, soften(rng, mask, 0.4, 1.4) if rng.random() < 0.7 else mask.astype(np.float32)
    if rng.random() < 0.4:
        side = np.roll(mask, rng.integers(-2, 3, 2).tolist(), (0, 1)) & ~mask
        fill = np.where(side[:, :, None], base - np.float32(0.5) * change, fill)
        alpha = np.maximum(alpha, side * np.float32(0.8))
    return Fill(fill, alpha)


def hole(rng: np.random.Generator, surface: Surface) -> Fill:
    """Fill a blot evenly, dark or bright."""
    image, (h, w) = surface.image, surface.size
    mask = masks.blot(rng, h, w, log_uniform(rng, 0.0002, 0.06) * h * w)
    level = np.clip(image.mean() + 2.0 * _draw_shift(rng, surface), 0.0, 1.0)
    fill = level * _draw_tint(rng, surface, 0.3) + rng.normal(0.0, 0.3 * surface.contrast, image.shape)
    return Fill(fill, soften(rng, mask, 0.4, 1.2))


def dent(rng: np.random.Generator, surface: Surface) -> Fill:
    """Shade the slopes of a dent or bump, bright towards a light and dark away from it."""
    (h, w), turn = surface.size, rng.uniform(0.0, 2.0 * np.pi)
    height = soften(rng, masks.any_shape(rng, h, w), 1.0, 0.03 * max(h, w) + 1.2)
    slope_y, slope_x = np.gradient(height)
    relief = slope_x * np.cos(turn) + slope_y * np.sin(turn)
    relief *= 1.5 * abs(_draw_shift(rng, surface)) / (np.abs(relief).max() + 1e-6)
    fill = surface.image + relief[:, :, None] * _draw_tint(rng, surface, 0.15)
    return Fill(fill, np.ones((h, w), np.float32))


def speck(rng: np.random.Generator, surface: Surface) -> Fill:
    """Strew small specks."""
    mask = masks.specks(rng, *surface.size)
    fill = surface.image + 1.5 * _draw_shift(rng, surface) * _draw_tint(rng, surface, 0.3)
    return Fill(fill, soften(rng, mask, 0.4, 1.2))


def box(rng: np.random.Generator, surface: Surface) -> Fill:
    """Put a rectangle of the surface elsewhere (CutPaste, Li et al. 2021)."""
    h, w = surface.size
    mask = np.zeros((h, w), np.uint8)
    area_px, ratio = log_uniform(rng, 0.001, 0.1) * h * w, log_uniform(rng, 0.2, 5.0)
    sides = (max(4.0, np.sqrt(area_px * ratio)), max(4.0, np.sqrt(area_px / ratio)))
    corners = cv2.boxPoints(((rng.uniform(0, w), rng.uniform(0, h)), sides, rng.uniform(0.0, 180.0)))
    cv2.fillPoly(mask, [corners.astype(np.int32)], 1)
    return Fill(_move(rng, surface.image) * np.float32(rng.uniform(0.8, 1.2)), mask)


def thread(rng: np.random.Generator, surface: Surface) -> Fill:
    """Lay a thread of one width whose direction wanders."""
    h, w = surface.size
    mask = np.zeros((h, w), np.uint8)
    count = int(rng.integers(6, 40))
    heading = rng.uniform(0.0, 2.0 * np.pi) + np.cumsum(rng.normal(0.0, 0.35, count))
    steps = rng.uniform(2.0, 8.0, (count, 1)) * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    points = rng.uniform(0.0, [w, h]) + np.cumsum(steps, axis=0)
    cv2.polylines(mask, [points.astype(np.int32)], False, 1, int(rng.integers(1, 4)))
    return Fill(surface.image + _draw_shift(rng, surface) * _draw_tint(rng, surface, 0.4), soften(rng, mask, 0.3, 0.8))


def glow(rng: np.random.Generator, surface: Surface) -> Fill:
    """Brighten or darken an oval with no edge at all."""
    (h, w), turn = surface.size, rng.uniform(0.0, np.pi)
    radius, stretch = np.sqrt(log_uniform(rng, 0.001, 0.2) * h * w / np.pi), np.sqrt(log_uniform(rng, 1.0, 4.0))
    y, x = np.mgrid[0:h, 0:w] - rng.uniform(0.0, [h, w]).reshape(2, 1, 1)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    alpha = np.exp(-((along / (radius * stretch)) ** 2) - (across * stretch / radius) ** 2)
    return Fill(surface.image + _draw_shift(rng, surface) * _draw_tint(rng, surface, 0.4), alpha)


def grain(rng: np.random.Generator, surface: Surface) -> Fill:
    """Make the fine structure much weaker or stronger."""
    mask = masks.area(rng, *surface.size, 0.002, 0.2)
    coarse = smooth(surface.image, log_uniform(rng, 1.0, 4.0))
    factor = rng.uniform(0.0, 0.35) if rng.random() < 0.5 else rng.uniform(1.8, 3.5)
    return Fill(coarse + (surface.image - coarse) * np.float32(factor), soften(rng, mask, 0.5, 2.0))


def swirl(rng: np.random.Generator, surface: Surface) -> Fill:
    """Twist the surface about a point."""
    h, w = surface.size
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    middle_y, middle_x = rng.uniform(0.0, h), rng.uniform(0.0, w)
    radius = rng.uniform(0.05, 0.25) * max(h, w)
    dy, dx = y - middle_y, x - middle_x
    turn = rng.uniform(-2.5, 2.5) * np.exp(-(dx**2 + dy**2) / radius**2)
    from_x = (middle_x + dx * np.cos(turn) - dy * np.sin(turn)).astype(np.float32)
    from_y = (middle_y + dx * np.sin(turn) + dy * np.cos(turn)).astype(np.float32)
    fill = cv2.remap(surface.image, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return Fill(fill.reshape(surface.image.shape), np.ones((h, w), np.float32))


TRAINING: Mapping[str, Kind] = {
    one.__name__: one for one in (texture, shade, piece, blur, smear, stain, scratch, hole, dent, speck)
}
UNSEEN: Mapping[str, Kind] = {one.__name__: one for one in (box, thread, glow, grain, swirl)}

"""Shapes of artificial defects: masks, bool [height, width]; one may be empty where the border cuts it off."""

import numpy as np
import numpy.typing as npt

from ndp_rt.arrays import BoolArray
from ndp_rt.images.opencv import cv2
from ndp_rt.images.painting.noise import draw_curve, draw_noise, log_uniform

Points = npt.NDArray[np.float64]  # [k, 2]: x, y

SMALLEST_AREA_PX = 8.0
CORNERS = 48  # of the polygon that is a blot
SUBPIXEL_BITS = 4  # of OpenCV's coordinates


def blot(rng: np.random.Generator, height: int, width: int, area_px: float) -> BoolArray:
    """Return one ragged blot of about `area_px` pixels, up to five times as long as wide."""
    stretch = np.sqrt(log_uniform(rng, 1.0, 5.0))
    radius = np.sqrt(max(area_px, SMALLEST_AREA_PX) / np.pi)
    ragged = draw_curve(rng, CORNERS + 1, CORNERS / log_uniform(rng, 3.0, 16.0), 2)
    ragged -= np.linspace(0.0, 1.0, CORNERS + 1, dtype=np.float32) * (ragged[-1] - ragged[0])  # it closes
    ragged -= ragged.mean()
    distance = radius * np.exp(rng.uniform(0.05, 0.35) * ragged[:-1])
    angle = np.linspace(0.0, 2.0 * np.pi, CORNERS, endpoint=False)
    along, across = distance * np.cos(angle) * stretch, distance * np.sin(angle) / stretch
    turn = _draw_angle(rng)
    x = along * np.cos(turn) - across * np.sin(turn) + rng.uniform(0.0, width)
    y = along * np.sin(turn) + across * np.cos(turn) + rng.uniform(0.0, height)
    mask = np.zeros((height, width), np.uint8)
    points = np.rint(np.stack([x, y], axis=1) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [points], 1, shift=SUBPIXEL_BITS)
    return mask.astype(np.bool_)


def area(
    rng: np.random.Generator, height: int, width: int, smallest: float = 0.0005, largest: float = 0.15
) -> BoolArray:
    """Return one blot, or patches of noise, that cover a share of the image between `smallest` and `largest`."""
    share = log_uniform(rng, smallest, largest)
    if rng.random() < 0.75:
        return blot(rng, height, width, share * height * width)
    return patches(rng, height, width, max(share, 0.005))


def patches(rng: np.random.Generator, height: int, width: int, share: float) -> BoolArray:
    """Return where smooth noise is highest: patches all over the image (as DRAEM's masks)."""
    noise = draw_noise(rng, height, width, max(height, width) / log_uniform(rng, 1.5, 14.0), 2)
    mask: BoolArray = noise > np.quantile(noise, 1.0 - min(share, 0.5))
    return mask


def specks(rng: np.random.Generator, height: int, width: int, largest_px: float = 80.0) -> BoolArray:
    """Return one to five small blots."""
    mask = np.zeros((height, width), np.bool_)
    for _ in range(int(rng.integers(1, 6))):
        mask |= blot(rng, height, width, log_uniform(rng, SMALLEST_AREA_PX, largest_px))
    return mask


def line(rng: np.random.Generator, height: int, width: int) -> BoolArray:
    """Return a thin line, 1 to 7 px wide, straight or winding, some with branches."""
    mask = np.zeros((height, width), np.uint8)
    side = max(height, width)
    start = rng.uniform(0.0, [width, height])
    turn, thickness_px = _draw_angle(rng), log_uniform(rng, 1.0, 7.0)
    points = _winding(rng, start, turn, log_uniform(rng, 10.0, 1.5 * side))
    _draw(mask, rng, points, thickness_px)
    while rng.random() < 0.3:
        branch = _winding(
            rng,
            points[int(rng.integers(len(points)))],
            turn + rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.6),
            log_uniform(rng, 8.0, 0.6 * side),
        )
        _draw(mask, rng, branch, max(1.0, 0.7 * thickness_px))
    return mask.astype(np.bool_)


def any_shape(rng: np.random.Generator, height: int, width: int) -> BoolArray:
    """Return an area, a line or specks."""
    kind = rng.random()
    if kind < 0.5:
        return area(rng, height, width)
    return line(rng, height, width) if kind < 0.85 else specks(rng, height, width, 60.0)


def _draw_angle(rng: np.random.Generator) -> float:
    """Return an angle; four in ten lie along an axis of the image, as those of a machine do."""
    if rng.random() < 0.4:
        return float(rng.integers(2)) * np.pi / 2.0 + rng.normal(0.0, 0.05)
    return rng.uniform(0.0, np.pi)


def _winding(
    rng: np.random.Generator, start: npt.NDArray[np.float64], turn: float, length_px: float
) -> npt.NDArray[np.float64]:
    """Return points [k, 2] of a path from `start`, 2 px apart."""
    count = max(3, int(length_px / 2.0))
    bend = rng.uniform(0.0, 0.7) * draw_curve(rng, count, log_uniform(rng, 4.0, 60.0), 3)
    heading = turn + bend - bend[0]
    steps = 2.0 * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    return start + np.cumsum(steps, axis=0)


def _draw(
    mask: npt.NDArray[np.uint8], rng: np.random.Generator, points: npt.NDArray[np.float64], thickness_px: float
) -> None:
    """Draw a path whose thickness varies along it."""
    widths = thickness_px * (1.0 + 0.35 * draw_curve(rng, len(points), 8.0))
    at = np.rint(points * 2**SUBPIXEL_BITS).astype(np.int32)
    for first, second, width_px in zip(at[:-1], at[1:], widths, strict=False):
        thickness = max(1, round(float(width_px)))
        cv2.line(mask, first.tolist(), second.tolist(), 1, thickness, cv2.LINE_8, SUBPIXEL_BITS)

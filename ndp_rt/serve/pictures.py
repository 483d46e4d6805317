"""Small pictures of images and their anomaly maps, for the page."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.marks import mark_defects
from ndp_rt.images.checks import Image
from ndp_rt.images.opencv import cv2
from ndp_rt.images.white_level import judge_brightness, measure_values
from ndp_rt.pipeline.overlays import Picture, Scale, choose_scale, show_image, show_map
from ndp_rt.pipeline.sinks import describe_defect
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.result import Result

JPEG_QUALITY = 85
MOST_OUTLINES, MOST_DEFECTS = 40, 100  # of one image that the page shows
OUTLINE_PX = 0.7  # how far a drawn outline may run beside the true one
SAMPLED_PX = 2**16  # whose mean is taken for an image's brightness


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An image as the page shows it.

    Attributes:
        picture: a JPEG of the image, shrunk.
        heat: a JPEG of its anomaly map; None where none was made.
        outlines: of the defects, x and y one after the other as shares of the picture's sides.
        facts: what else is known, as values of JSON.
    """

    number: int
    picture: bytes
    heat: bytes | None
    outlines: Sequence[Sequence[float]]
    facts: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return all but the pictures as values of JSON."""
        return {"number": self.number, "has_heat": self.heat is not None, "outlines": self.outlines, **self.facts}


def draw(number: int, image: Image, result: Result, waited_s: float, manifest: BundleManifest) -> Drawn:
    """Return the pictures of an image, of the size of `ndp_rt.pipeline.overlays`.

    Args:
        number: of the image.
        image: that was inspected.
        result: with a map or without one; then the outlines are the defects' boxes.
        waited_s: in the queue.
        manifest: of the bundle that inspected it.
    """
    height, width = image.shape[:2]
    white_level, scale = manifest.input.white_level_16bit, choose_scale(height, width)
    heat, outlines = None, [trace_box(one.x_px, one.y_px, one.width_px, one.height_px) for one in result.defects]
    outlines = [[*(np.reshape(line, (-1, 2)) / (width, height)).ravel().tolist()] for line in outlines[:MOST_OUTLINES]]
    if result.anomaly_map.size:
        heat = encode_jpeg(show_map(result.anomaly_map, scale, result.map_threshold))
        if result.is_defect:
            outlines = trace_defects(result, scale)
    return Drawn(
        number=number,
        picture=encode_jpeg(show_image(image, scale, white_level)),
        heat=heat,
        outlines=[[round(value, 4) for value in line] for line in outlines],
        facts={
            "time_ms": round(time.time() * 1e3),
            "score": finite(result.score),
            "threshold": finite(result.threshold),
            "is_defect": result.is_defect,
            "height_px": height,
            "width_px": width,
            "brightness": measure_brightness(image, white_level),
            "brightness_word": judge_brightness(measure_values(image), white_level, manifest.training_range),
            "waited_ms": round(waited_s * 1e3, 2),
            "total_ms": round(result.timings_ms["total"], 2),
            "defect_count": len(result.defects),
            "defects": [describe_defect(one) for one in result.defects[:MOST_DEFECTS]],
        },
    )


def trace_box(x: float, y: float, width: float, height: float) -> list[float]:
    """Return a box's corners, x and y one after the other."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def trace_defects(result: Result, scale: Scale) -> list[list[float]]:
    """Return the largest outlines of a result with a map, as shares of the picture's sides."""
    size = scale.width_px, scale.height_px
    small: FloatArray = cv2.resize(result.anomaly_map, size, interpolation=cv2.INTER_LINEAR)
    mask = mark_defects(small, result.map_threshold, result.large).view(np.uint8)
    lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    lines = sorted(lines, key=cv2.contourArea, reverse=True)[:MOST_OUTLINES]
    lines = [cv2.approxPolyDP(line, OUTLINE_PX, True).reshape(-1, 2) for line in lines]
    return [((line + 0.5) / size).ravel().tolist() for line in lines]


def encode_jpeg(picture: Picture) -> bytes:
    """Return a picture as the content of a JPEG file."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def measure_brightness(image: Image, white_level_16bit: int) -> float:
    """Return an image's mean as a share of white, of SAMPLED_PX pixels evenly over it."""
    step = max(1, int((image.shape[0] * image.shape[1] / SAMPLED_PX) ** 0.5))
    white = 255 if image.dtype == np.uint8 else white_level_16bit
    return float(image[::step, ::step].mean()) / white


def finite(value: float) -> float | None:
    """Return a number, or None for infinity and NaN, which JSON lacks."""
    return float(value) if np.isfinite(value) else None

"""The page of `ndp-rt evaluate --explain`: the images that were judged worst, and what the model saw in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.decide.marks import mark_defects
from ndp_rt.evaluate.run import Evaluation
from ndp_rt.evaluate.score_samples import Scored
from ndp_rt.files import write_atomically
from ndp_rt.images.read import read_image
from ndp_rt.pipeline.overlays import (
    CONTOUR,
    MASK_CONTOUR,
    choose_scale,
    draw_outlines,
    draw_point,
    make_data_url,
    show_image,
    show_map,
)

TEMPLATES = Path(__file__).parent.parent / "data"
TEMPLATE = "explain.html"
NO_THRESHOLD = 0.5  # the middle of the maps' colours where there is no threshold, and the maps go up to 1


@dataclass(frozen=True, kw_only=True)
class MapFigures:
    """Where a map peaks, and how it compares inside and outside of the mask.

    A figure is None where there is no usable mask, or no pixel of that side.
    """

    peak_x_px: int
    peak_y_px: int
    mask_area_px: int | None
    peak_inside: float | None
    peak_outside: float | None
    is_peak_in_mask: bool | None


def measure_map(anomaly_map: FloatArray, mask: BoolArray | None) -> MapFigures:
    """Compare a map [h, w] with its mask [h, w]; a peak that both sides share is the mask's."""
    peak = anomaly_map == anomaly_map.max()
    inside = outside = is_in_mask = None
    if mask is not None:
        inside = float(anomaly_map[mask].max()) if mask.any() else None
        outside = float(anomaly_map[~mask].max()) if not mask.all() else None
        is_in_mask = bool((peak & mask).any())
        peak = peak & mask if is_in_mask else peak
    y, x = np.unravel_index(int(np.argmax(peak)), peak.shape)
    return MapFigures(
        peak_x_px=int(x),
        peak_y_px=int(y),
        mask_area_px=None if mask is None else int(mask.sum()),
        peak_inside=inside,
        peak_outside=outside,
        is_peak_in_mask=is_in_mask,
    )


def pick_worst(evaluation: Evaluation, count: int) -> tuple[list[Scored], list[Scored]]:
    """Return the `count` defective images with the lowest scores, and the good ones with the highest, worst first."""
    bad = [one for one in evaluation.scored if not one.sample.is_good]
    good = [one for one in evaluation.scored if one.sample.is_good]
    return sorted(bad, key=lambda one: one.score)[:count], sorted(good, key=lambda one: -one.score)[:count]


def write_page(
    evaluation: Evaluation, data: Path, title: str, path: Path, *, count: int, white_level_16bit: int = 65535
) -> None:
    """Write the page; arguments and errors as `make_page`.

    Raises:
        StorageError: the file could not be written.
    """
    page = make_page(evaluation, data, title, count=count, white_level_16bit=white_level_16bit)
    write_atomically(path, page.encode("utf-8", "replace"))  # a file's name need not be UTF-8


def make_page(evaluation: Evaluation, data: Path, title: str, *, count: int, white_level_16bit: int = 65535) -> str:
    """Return the page as HTML that needs no other file.

    Args:
        evaluation: its images are read once more, to be drawn.
        data: the folder that the images are in.
        title: bundle, data and engine.
        count: how many misses and how many false alarms are shown, at most.
        white_level_16bit: of the bundle's input contract.

    Raises:
        ImageFileError: an image cannot be read any more.
    """
    misses, alarms = pick_worst(evaluation, count)
    level = evaluation.threshold if evaluation.map_threshold is None else evaluation.map_threshold
    middle = max([NO_THRESHOLD, *(float(one.anomaly_map.max()) / 2 for one in (*misses, *alarms))])

    def describe(images: Sequence[Scored]) -> list[dict[str, Any]]:
        return [describe_image(one, data, level, white_level_16bit, middle) for one in images]

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template(TEMPLATE).render(
        title=title,
        threshold=evaluation.threshold,
        map_threshold=level,
        middle=middle,
        mask_colour=MASK_CONTOUR,
        overall=evaluation.overall,
        confusion=evaluation.confusion,
        excluded_count=len(evaluation.exclusions),
        good_count=sum(one.sample.is_good for one in evaluation.scored),
        misses=describe(misses),
        alarms=describe(alarms),
    )


def describe_image(
    one: Scored, data: Path, threshold: float | None, white_level_16bit: int, middle: float = NO_THRESHOLD
) -> dict[str, Any]:
    """Return what the page says and shows of one image; `middle` is that of the colours without a threshold."""
    image = read_image(one.sample.path, white_level=white_level_16bit)
    scale = choose_scale(*image.shape[:2])
    figures = measure_map(one.anomaly_map, one.mask)
    shown = show_image(image, scale, white_level_16bit)
    marked = shown.copy()
    if threshold is not None and one.is_defect:
        draw_outlines(marked, mark_defects(one.anomaly_map, threshold, one.large), CONTOUR)
    if one.mask is not None:
        draw_outlines(marked, one.mask, MASK_CONTOUR)
    height, width = one.anomaly_map.shape
    draw_point(marked, (figures.peak_x_px + 0.5) / width, (figures.peak_y_px + 0.5) / height)
    heat = show_map(one.anomaly_map, scale, middle if threshold is None else threshold)
    peak = float(one.anomaly_map.max())
    is_faint = threshold is not None and 0.0 < peak < threshold
    return {
        "path": one.sample.path.relative_to(data).as_posix(),
        "kind": one.sample.kind,
        "is_good": one.sample.is_good,
        "is_defect": one.is_defect,
        "score": one.score,
        "figures": figures,
        "peak": peak,
        "mask_share": None if one.mask is None else float(one.mask.mean()),
        "image": make_data_url(shown),
        "heat": make_data_url(heat),
        "stretched": make_data_url(show_map(one.anomaly_map / peak, scale, 0.5)) if is_faint else None,
        "marked": make_data_url(marked),
    }

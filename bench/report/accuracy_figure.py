"""Figures: speed against accuracy, of one record's rows or of several records'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ndp_rt.bench.read_records import find_number, find_section
from ndp_rt.bench.report.drawing import INK, drawing, set_log_axis, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.marks import KIND_COLOURS, Drawn, Mark, add_legend, draw_marks, find_kind_colour, make_handle
from ndp_rt.bench.report.words import KIND_WORDS, format_accuracy, format_number, name_rows

if TYPE_CHECKING:
    from markupsafe import Markup

METRICS = {"image_rocauc": "image ROCAUC", "aupro": "AUPRO", "pixel_rocauc": "pixel ROCAUC"}
TITLE = "Speed and accuracy"
REPORTED = "reported"
OURS, SINGLE_STREAM = "ndp-rt", "single-stream"
SHAPES = ("o", "s", "^", "v", "P", "X")  # of measured rows, one a run; reported ones are hollow diamonds
SPREAD_FROM, SPREAD_TO = 0.1, 0.9995
SPREAD_TICKS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
LINE_POINT_COUNT = 20  # of a step of the front, for labels to leave free
FRONT_WORDS = "ndp-rt's front: nothing of ours is both faster and better"

Point = tuple[float, float]  # milliseconds and accuracy


@dataclass(frozen=True, kw_only=True)
class Plotted:
    """A row as a mark: its name in the figure, the run that it is from, and whether it counts for a front.

    `place` says on what its time and its accuracy were found; a front joins rows of one place.
    """

    row: Mapping[str, Any]
    name: str
    run: str = ""
    shape: str = SHAPES[0]
    place: str = ""


def is_reported(row: Mapping[str, Any]) -> bool:
    """Tell whether a row's accuracy is from a publication; otherwise it was measured in the run."""
    return str(find_section(row, "accuracy").get("source") or "").startswith(REPORTED)


def is_single(row: Mapping[str, Any]) -> bool:
    """Tell whether a query of the row is one image by itself, so that its latency is what an image takes."""
    return bool(row.get("batch", 1) == 1 and row.get("scenario", SINGLE_STREAM) == SINGLE_STREAM)


def draw_accuracies(rows: Sequence[Mapping[str, Any]], figure_id: str) -> list[Drawn]:
    """Return a figure for image ROCAUC and one for AUPRO; for pixel ROCAUC where neither has data."""
    plotted = [Plotted(row=row, name=name) for row, name in zip(rows, name_rows(rows), strict=True)]
    wanted = list_metrics(rows)
    if not wanted:
        words = "Left out: no row has an accuracy. Run `ndp-rt bench` with --data DIR to measure it."
        return [Drawn(title=TITLE, words=words)]
    return [draw_metric(plotted, metric, f"{figure_id}-{metric.replace('_', '-')}") for metric in wanted]


def list_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that are drawn; none where no row has an accuracy."""
    metrics = [metric for metric in METRICS if any(find_number(row, "accuracy", metric) is not None for row in rows)]
    return [metric for metric in metrics if metric != "pixel_rocauc"] or metrics


def draw_metric(plotted: Sequence[Plotted], metric: str, figure_id: str) -> Drawn:
    """Return the figure of one metric; one row at least has it."""
    marks: list[Mark] = []
    shown: list[Plotted] = []
    for one in plotted:
        height, p50 = find_number(one.row, "accuracy", metric), find_number(one.row, "latency", "p50_ms")
        if height is None or p50 is None:
            continue
        shown.append(one)
        reported = is_reported(one.row)
        marks.append(
            Mark(
                x=p50,
                y=height,
                name=one.name,
                colour=find_kind_colour(one.row.get("kind")),
                shape="D" if reported else one.shape,
                is_hollow=reported,
            )
        )
    svg, key = _draw_plane(shown, marks, metric, figure_id)
    sources = dict.fromkeys(
        str(find_section(one.row, "accuracy").get("source") or "source not recorded") for one in shown
    )
    missing = len(plotted) - len(marks)
    words = f"Where the accuracies are from: {'; '.join(sources)}."
    if any(mark.is_hollow for mark in marks):
        words += " Reported ones are from other data than measured ones."
    if missing:
        words += f" {missing} row{' has' if missing == 1 else 's have'} no {METRICS[metric]} and no mark."
    return Drawn(title=f"{TITLE}: {METRICS[metric]}", words=words, svg=svg, key=key)


def _draw_plane(
    shown: Sequence[Plotted], marks: Sequence[Mark], metric: str, figure_id: str
) -> "tuple[Markup, tuple[str, ...]]":
    """Draw marks, fronts, axes and legend; return the figure and the key of numbered marks."""
    fronts = list_fronts(shown, marks)
    with drawing():
        figure = start_figure(4.4 if len(marks) <= 8 else 6.4)
        axes = figure.add_subplot()
        set_log_axis(axes.xaxis, min(mark.x for mark in marks), max(mark.x for mark in marks), margin=1.5)
        _set_height_axis(axes, [mark.y for mark in marks])
        axes.set(xlabel="p50 latency of a query, ms (logarithmic); left is faster", ylabel=METRICS[metric])
        trim_axes(axes, grid="both")
        lines: list[Point] = []
        for front in fronts:
            corners = list_corners(front)
            axes.plot(*zip(*corners, strict=True), color=KIND_COLOURS[OURS], linewidth=1.3, alpha=0.55, zorder=2)
            lines += _list_line_points(corners)
        add_legend(
            figure, _list_handles(shown, marks, bool(fronts)), 3 if fronts or any(one.run for one in shown) else 5
        )
        key = draw_marks(figure, axes, marks, lines)
        label = f"{METRICS[metric]} against median latency: " + "; ".join(
            f"{mark.name} {format_accuracy(mark.y)} at {format_number(mark.x)} ms" for mark in marks
        )
        return write_svg(figure, figure_id, label), key


def list_fronts(shown: Sequence[Plotted], marks: Sequence[Mark]) -> list[list[Point]]:
    """Return the front of our measured single images for each place that has two points of one, by rising time."""
    places: dict[str, list[Point]] = {}
    for one, mark in zip(shown, marks, strict=True):
        if one.row.get("kind") == OURS and is_single(one.row) and not mark.is_hollow:
            places.setdefault(one.place, []).append((mark.x, mark.y))
    fronts = [find_front(points) for points in places.values()]
    return [front for front in fronts if len(front) > 1]


def find_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is at least as fast and as good as, by rising time; of equal ones the first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one[0], -one[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def list_corners(front: Sequence[Point]) -> list[Point]:
    """Return a front as steps: until the next point nothing better is had."""
    corners = [front[0]]
    for (_, y), point in pairwise(front):
        corners += [(point[0], y), point]
    return corners


def _list_line_points(corners: Sequence[Point]) -> list[Point]:
    """Return points along the steps, even on the logarithmic axis."""
    found: list[Point] = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        xs, ys = np.geomspace(x0, x1, LINE_POINT_COUNT), np.linspace(y0, y1, LINE_POINT_COUNT)
        found += [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    return found


def _set_height_axis(axes: Any, heights: Sequence[float]) -> None:
    """Set the axis of accuracies; a long one is spread towards 1, where the good rows would lie on each other."""
    low, high = min(heights), max(heights)
    span = max(high - low, 0.02)
    if span > SPREAD_FROM and high <= SPREAD_TO:
        axes.set_yscale(
            "function", functions=(lambda value: -np.log10(np.maximum(1 - value, 1e-9)), lambda value: 1 - 10.0**-value)
        )
        axes.set_ylim(1 - (1 - low) * 1.25, 1 - (1 - high) / 1.25)
        ticks = [tick for tick in SPREAD_TICKS if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
        labels = [f"{tick:.{2 if tick < 0.99 else 3}f}" for tick in ticks]
    else:
        limits = low - 0.12 * span, high + 0.12 * span
        axes.set_ylim(limits)
        ticks = [float(tick) for tick in axes.get_yticks() if limits[0] <= tick <= min(limits[1], 1.0 + 1e-9)]
        labels = [f"{tick:.{count_decimals(ticks)}f}" for tick in ticks]
    axes.set_yticks(ticks, labels)
    axes.set_yticks([], minor=True)


def count_decimals(ticks: Sequence[float]) -> int:
    """Return how many decimals show every tick as what it is, 2 to 4."""
    return next((count for count in (2, 3) if all(abs(round(tick, count) - tick) < 1e-9 for tick in ticks)), 4)


def _list_handles(shown: Sequence[Plotted], marks: Sequence[Mark], has_front: bool) -> list[Any]:
    kinds = dict.fromkeys(str(one.row.get("kind")) for one in shown)
    handles = [
        make_handle(KIND_WORDS.get(kind, kind), linestyle="", marker="s", color=find_kind_colour(kind))
        for kind in kinds
    ]
    measured = [one for one, mark in zip(shown, marks, strict=True) if not mark.is_hollow]
    runs = {one.run: one.shape for one in measured}
    handles += [
        make_handle(run or "measured in this run", linestyle="", marker=shape, color=INK) for run, shape in runs.items()
    ]
    if any(mark.is_hollow for mark in marks):
        looks = {"markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.6}
        handles.append(make_handle("reported by others", linestyle="", marker="D", **looks))
    if has_front:
        handles.append(make_handle(FRONT_WORDS, linewidth=1.3, alpha=0.55, color=KIND_COLOURS[OURS]))
    return handles

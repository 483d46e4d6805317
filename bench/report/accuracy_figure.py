"""Figures: speed against accuracy, of one record's rows or of several records'."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section
from ndp_rt.bench.report.drawing import (
    KIND_COLOURS,
    Drawn,
    Mark,
    add_legend,
    draw_marks,
    drawing,
    find_kind_colour,
    make_address,
    set_log_axis,
)
from ndp_rt.bench.report.words import format_accuracy, format_number, name_rows

METRICS = {"image_rocauc": "image ROCAUC", "aupro": "AUPRO", "pixel_rocauc": "pixel ROCAUC"}
TITLE = "Speed and accuracy"
OURS, SINGLE_STREAM = "ndp-rt", "single-stream"
LEAST_GAP = 1e-4  # an accuracy of 1 has no place on the logarithmic axis


@dataclass(frozen=True, kw_only=True)
class Plotted:
    """A row as a mark: its name in the figure, and on what its time and accuracy were found.

    A front joins rows of one place.
    """

    row: Mapping[str, Any]
    name: str
    place: str = ""

    def find_point(self, metric: str) -> tuple[float, float] | None:
        """Return its milliseconds and how far its accuracy is from 1; None: it has not both."""
        height, p50 = find_number(self.row, "accuracy", metric), find_number(self.row, "latency", "p50_ms")
        return None if height is None or p50 is None else (p50, max(1 - height, LEAST_GAP))


def is_reported(row: Mapping[str, Any]) -> bool:
    """Tell whether a row's accuracy is from a publication; otherwise it was measured in the run."""
    return str(find_section(row, "accuracy").get("source") or "").startswith("reported")


def is_single(row: Mapping[str, Any]) -> bool:
    """Tell whether a query of the row is one image by itself, so that its latency is what an image takes."""
    return bool(row.get("batch", 1) == 1 and row.get("scenario", SINGLE_STREAM) == SINGLE_STREAM)


def draw_accuracies(rows: Sequence[Mapping[str, Any]]) -> list[Drawn]:
    """Return a figure for image ROCAUC and one for AUPRO; for pixel ROCAUC where neither has data."""
    plotted = [Plotted(row=row, name=name) for row, name in zip(rows, name_rows(rows), strict=True)]
    wanted = list_metrics(rows)
    if not wanted:
        words = "Left out: no row has an accuracy. Run `ndp-rt bench` with --data DIR to measure it."
        return [Drawn(title=TITLE, words=words)]
    return [draw_metric(plotted, metric) for metric in wanted]


def list_metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that are drawn; none where no row has an accuracy."""
    metrics = [metric for metric in METRICS if any(find_number(row, "accuracy", metric) is not None for row in rows)]
    return [metric for metric in metrics if metric != "pixel_rocauc"] or metrics


def draw_metric(plotted: Sequence[Plotted], metric: str) -> Drawn:
    """Return the figure of one metric; one row at least has it."""
    points = [(one, point) for one in plotted if (point := one.find_point(metric)) is not None]
    marks = [
        Mark(x=x, y=y, name=one.name, colour=find_kind_colour(one.row.get("kind")), is_hollow=is_reported(one.row))
        for one, (x, y) in points
    ]
    with drawing(5.6) as (figure, axes):
        for front in (front for front in find_fronts(plotted, metric) if len(front) > 1):
            steps = [one.find_point(metric) or (0.0, 0.0) for one in front]
            looks = {"color": KIND_COLOURS[OURS], "linewidth": 1.3, "alpha": 0.55}
            label = "ndp-rt's front: nothing of ours is both faster and better"
            axes.step(*zip(*steps, strict=True), where="post", label=label, **looks)
        set_log_axis(axes.xaxis, min(mark.x for mark in marks), max(mark.x for mark in marks))
        set_log_axis(axes.yaxis, min(mark.y for mark in marks), max(mark.y for mark in marks))
        axes.invert_yaxis()
        axes.set_xlabel("p50 latency of a query, ms (logarithmic); left is faster")
        axes.set_ylabel(f"1 - {METRICS[metric]} (logarithmic); up is better")
        key = draw_marks(axes, marks)
        add_legend(figure, axes, [one.row.get("kind") for one, _ in points])
        label = f"{METRICS[metric]} against median latency: " + "; ".join(
            f"{mark.name} {format_accuracy(1 - mark.y)} at {format_number(mark.x)} ms" for mark in marks
        )
        title, words = f"{TITLE}: {METRICS[metric]}", _describe(plotted, metric, marks)
        return Drawn(title=title, words=words, address=make_address(figure), label=label, key=key)


def _describe(plotted: Sequence[Plotted], metric: str, marks: Sequence[Mark]) -> str:
    sources = dict.fromkeys(
        str(find_section(one.row, "accuracy").get("source") or "source not recorded")
        for one in plotted
        if one.find_point(metric) is not None
    )
    missing = len(plotted) - len(marks)
    words = f"Where the accuracies are from: {'; '.join(sources)}."
    if any(mark.is_hollow for mark in marks):
        words += " Hollow marks: reported by others, from other data than measured ones."
    if missing:
        words += f" {missing} row{' has' if missing == 1 else 's have'} no {METRICS[metric]} and no mark."
    return words


def find_fronts(plotted: Sequence[Plotted], metric: str) -> list[list[Plotted]]:
    """Return, for each place, ours whose single images no other of ours is at least as fast and as good as.

    Measured ones alone, by rising time; of equal ones the first.
    """
    places: dict[str, list[tuple[tuple[float, float], Plotted]]] = {}
    for one in plotted:
        point = one.find_point(metric)
        if one.row.get("kind") == OURS and is_single(one.row) and not is_reported(one.row) and point is not None:
            places.setdefault(one.place, []).append((point, one))
    fronts = []
    for points in places.values():
        front: list[Plotted] = []
        best = float("inf")
        for (_, gap), one in sorted(points, key=lambda pair: pair[0]):
            if gap < best:
                front.append(one)
                best = gap
        fronts.append(front)
    return fronts

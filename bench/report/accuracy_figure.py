"""Figure: speed against accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.read_records import find_number, find_section
from ndp_rt.bench.report.drawing import INK, drawing, set_log_axis, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.figures import Drawn, Mark, add_legend, draw_marks, find_kind_colour, make_handle
from ndp_rt.bench.report.words import KIND_WORDS, format_accuracy, format_number, name_rows

METRICS = {"image_rocauc": "image ROCAUC", "aupro": "AUPRO", "pixel_rocauc": "pixel ROCAUC"}
TITLE = "Speed and accuracy"
REPORTED = "reported"
SPREAD_FROM, SPREAD_TO = 0.1, 0.9995
SPREAD_TICKS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def is_reported(row: Mapping[str, Any]) -> bool:
    """Tell whether a row's accuracy is from a publication; otherwise it was measured in the run."""
    return str(find_section(row, "accuracy").get("source") or "").startswith(REPORTED)


def draw_accuracies(rows: Sequence[Mapping[str, Any]], figure_id: str) -> list[Drawn]:
    """Return a figure for image ROCAUC and one for AUPRO; for pixel ROCAUC where neither has data."""
    metrics = [metric for metric in METRICS if any(find_number(row, "accuracy", metric) is not None for row in rows)]
    wanted = [metric for metric in metrics if metric != "pixel_rocauc"] or metrics
    if not wanted:
        words = "Left out: no row has an accuracy. Run `ndp-rt bench` with --data DIR to measure it."
        return [Drawn(title=TITLE, words=words)]
    return [_draw_metric(rows, metric, f"{figure_id}-{metric.replace('_', '-')}") for metric in wanted]


def _draw_metric(rows: Sequence[Mapping[str, Any]], metric: str, figure_id: str) -> Drawn:
    marks: list[Mark] = []
    sources: dict[str, None] = {}
    for row, name in zip(rows, name_rows(rows), strict=True):
        height, p50 = find_number(row, "accuracy", metric), find_number(row, "latency", "p50_ms")
        if height is None or p50 is None:
            continue
        reported = is_reported(row)
        marks.append(
            Mark(
                x=p50,
                y=height,
                name=name,
                colour=find_kind_colour(row.get("kind")),
                shape="D" if reported else "o",
                is_hollow=reported,
            )
        )
        sources[str(find_section(row, "accuracy").get("source") or "source not recorded")] = None
    with drawing():
        figure = start_figure(4.4 if len(marks) <= 8 else 6.4)
        axes = figure.add_subplot()
        set_log_axis(axes.xaxis, min(mark.x for mark in marks), max(mark.x for mark in marks), margin=1.5)
        _set_height_axis(axes, [mark.y for mark in marks])
        axes.set(xlabel="p50 latency of a query, ms (logarithmic); left is faster", ylabel=METRICS[metric])
        trim_axes(axes, grid="both")
        add_legend(figure, _list_handles(rows, marks), 5)
        key = draw_marks(figure, axes, marks)
        label = f"{METRICS[metric]} against median latency: " + "; ".join(
            f"{mark.name} {format_accuracy(mark.y)} at {format_number(mark.x)} ms" for mark in marks
        )
        svg = write_svg(figure, figure_id, label)
    missing = len(rows) - len(marks)
    words = f"Where the accuracies are from: {'; '.join(sources)}."
    if any(mark.is_hollow for mark in marks):
        words += " Reported ones are from other data than measured ones."
    if missing:
        words += f" {missing} row{' has' if missing == 1 else 's have'} no {METRICS[metric]} and no mark."
    return Drawn(title=f"{TITLE}: {METRICS[metric]}", words=words, svg=svg, key=key)


def _set_height_axis(axes: Any, heights: Sequence[float]) -> None:
    """Set the axis of accuracies; a long one is spread towards 1, where the good contenders would lie on each other."""
    low, high = min(heights), max(heights)
    span = max(high - low, 0.02)
    if span > SPREAD_FROM and high <= SPREAD_TO:
        axes.set_yscale(
            "function", functions=(lambda value: -np.log10(np.maximum(1 - value, 1e-9)), lambda value: 1 - 10.0**-value)
        )
        axes.set_ylim(1 - (1 - low) * 1.25, 1 - (1 - high) / 1.25)
        ticks = [tick for tick in SPREAD_TICKS if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    else:
        limits = low - 0.12 * span, high + 0.12 * span
        axes.set_ylim(limits)
        ticks = [tick for tick in axes.get_yticks() if limits[0] <= tick <= min(limits[1], 1.0 + 1e-9)]
    axes.set_yticks(ticks, [f"{tick:.{2 if span > 0.05 and tick < 0.99 else 3}f}" for tick in ticks])
    axes.set_yticks([], minor=True)


def _list_handles(rows: Sequence[Mapping[str, Any]], marks: Sequence[Mark]) -> list[Any]:
    colours = {mark.colour for mark in marks}
    kinds = [kind for kind in dict.fromkeys(str(row.get("kind")) for row in rows) if find_kind_colour(kind) in colours]
    handles = [
        make_handle(KIND_WORDS.get(kind, kind), linestyle="", marker="s", color=find_kind_colour(kind))
        for kind in kinds
    ]
    if any(not mark.is_hollow for mark in marks):
        handles.append(make_handle("measured in this run", linestyle="", marker="o", color=INK))
    if any(mark.is_hollow for mark in marks):
        looks = {"markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.6}
        handles.append(make_handle("reported by others", linestyle="", marker="D", **looks))
    return handles

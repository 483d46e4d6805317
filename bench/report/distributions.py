"""Figure: how each row's times are spread."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.read_records import find_number, list_numbers
from ndp_rt.bench.report.drawing import INK, drawing, make_label, set_log_axis, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.marks import Drawn, add_legend, find_kind_colour, make_handle, make_patch
from ndp_rt.bench.report.words import KIND_WORDS, format_number, name_rows
from ndp_rt.evaluate.plots import spread_points

TITLE = "Latency distributions"
POINTS_IN_ALL, FEWEST_POINTS, MOST_POINTS = 4000, 80, 400
BOX_HALF = 0.36


def draw_distributions(rows: Sequence[Mapping[str, Any]], figure_id: str) -> Drawn:
    """Return the figure: a strip of points a row on a logarithmic axis, with quartiles, p50 and p99."""
    if not rows:
        return Drawn(title=TITLE, words="Left out: no row was measured.")
    words = "Each point is a query. Fewer points than queries are drawn where there are many."
    if not all(list_numbers(row, "latencies_ms") for row in rows):
        words += " A row without points has only its percentiles in the record."
    with drawing():
        figure = start_figure(1.15 + (0.42 if len(rows) <= 10 else 0.34) * len(rows))
        axes = figure.add_subplot()
        names = name_rows(rows)
        limits = [_draw_row(axes, y, row, len(rows)) for y, row in enumerate(rows)]
        set_log_axis(axes.xaxis, min(low for low, _ in limits), max(high for _, high in limits))
        axes.set_yticks(range(len(rows)), [make_label(name) for name in names], fontsize=9)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlabel("latency of a query, ms (logarithmic)")
        trim_axes(axes)
        axes.tick_params(axis="y", length=0)
        right = axes.secondary_yaxis("right")
        right.set_yticks(
            range(len(rows)), [f"{format_number(find_number(row, 'latency', 'p50_ms'))} ms" for row in rows], fontsize=9
        )
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        kinds = dict.fromkeys(str(row.get("kind")) for row in rows)
        handles = [
            make_handle(KIND_WORDS.get(kind, kind), linestyle="", marker="o", color=find_kind_colour(kind))
            for kind in kinds
        ]
        handles += [
            make_patch("p25 to p75", facecolor="none", edgecolor=INK, linewidth=0.9),
            make_handle(
                "p50, at the right in ms", linestyle="", marker="|", markersize=11, markeredgewidth=2.4, color=INK
            ),
            make_handle("p99", linestyle="", marker="|", markersize=8, markeredgewidth=1.4, color=INK),
        ]
        add_legend(figure, handles, 6)
        label = "Latency of each query by row. Medians: " + "; ".join(
            f"{name} {format_number(find_number(row, 'latency', 'p50_ms'))} ms"
            for name, row in zip(names, rows, strict=True)
        )
        return Drawn(title=TITLE, words=words, svg=write_svg(figure, figure_id, label))


def _draw_row(axes: Any, y: int, row: Mapping[str, Any], row_count: int) -> tuple[float, float]:
    """Draw one row; return its least and greatest time."""
    times = np.sort([time for time in list_numbers(row, "latencies_ms") if time > 0])
    p50, p99 = find_number(row, "latency", "p50_ms"), find_number(row, "latency", "p99_ms")
    assert p50 is not None  # read_records checked it
    shown = [p50] if p99 is None else [p50, max(p99, p50)]
    if times.size:
        count = min(times.size, int(np.clip(POINTS_IN_ALL // row_count, FEWEST_POINTS, MOST_POINTS)))
        points = times[np.linspace(0, times.size - 1, count).round().astype(int)]
        heights = y + spread_points(count)
        # Dots are lines without length and with round ends: one path in the page instead of an element a dot.
        xs = np.stack([points, points, np.full(count, np.nan)], axis=1).ravel()
        ys = np.stack([heights, heights + 1e-4, np.full(count, np.nan)], axis=1).ravel()
        axes.plot(
            xs, ys, color=find_kind_colour(row.get("kind")), linewidth=3.0, solid_capstyle="round", alpha=0.55, zorder=2
        )
        low, high = np.percentile(times, (25, 75))
        corners = [low, high, high, low, low]
        sides = [y - BOX_HALF, y - BOX_HALF, y + BOX_HALF, y + BOX_HALF, y - BOX_HALF]
        axes.plot(corners, sides, color=INK, linewidth=0.9, zorder=3)
        shown += [float(times[0]), float(times[-1])]
    axes.plot([p50, p50], [y - BOX_HALF, y + BOX_HALF], color=INK, linewidth=2.4, solid_capstyle="butt", zorder=4)
    if p99 is not None:
        axes.plot([p99, p99], [y - 0.24, y + 0.24], color=INK, linewidth=1.4, solid_capstyle="butt", zorder=4)
    return min(shown), max(shown)

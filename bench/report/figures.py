"""Figures of a record's rows: how their times are spread, and what they reach of the machine's roofline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.read_records import find_number, list_numbers
from ndp_rt.bench.report.drawing import (
    INK,
    Drawn,
    Mark,
    add_legend,
    draw_marks,
    drawing,
    find_kind_colour,
    make_address,
    set_log_axis,
)
from ndp_rt.bench.report.words import format_number, format_share, name_rows, shorten
from ndp_rt.evaluate.plots import COLOURS

SPREAD, ROOFLINE = "Latency distributions", "Roofline"
Row = Mapping[str, Any]


def draw_distributions(rows: Sequence[Row]) -> Drawn:
    """Return the figure: for each row, on a logarithmic axis, a line over all times, a box over half, p50 and p99."""
    names, places = name_rows(rows), range(len(rows))
    p50 = [find_number(row, "latency", "p50_ms") or 0.0 for row in rows]  # read_records checked that it is there
    p99 = [find_number(row, "latency", "p99_ms") or middle for row, middle in zip(rows, p50, strict=True)]
    times = [[one for one in list_numbers(row, "latencies_ms") if one > 0] for row in rows]
    shares = [np.percentile(own or [middle], (0, 25, 75, 100)) for own, middle in zip(times, p50, strict=True)]
    least, low, high, most = np.transpose(shares)
    colours = [find_kind_colour(row.get("kind")) for row in rows]
    with drawing(1.2 + 0.34 * len(rows)) as (figure, axes):
        axes.hlines(places, least, most, color=colours, linewidth=2, label="all queries")
        axes.barh(places, high - low, left=low, height=0.6, color=colours, label="p25 to p75")
        axes.plot(p50, places, "|", markersize=18, markeredgewidth=2.4, color=INK, label="p50")
        axes.plot(p99, places, "|", markersize=11, markeredgewidth=1.4, color=INK, label="p99")
        set_log_axis(axes.xaxis, min(*least, *p50), max(*most, *p99))
        labels = [f"{shorten(name)}  {format_number(ms)} ms" for name, ms in zip(names, p50, strict=True)]
        axes.set_yticks(places, labels, fontsize=9)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("latency of a query, ms (logarithmic); beside each name its median")
        add_legend(figure, axes, [row.get("kind") for row in rows])
        words = "" if all(times) else "A row without a line has only its percentiles in the record."
        label = "Medians: " + "; ".join(labels)
        return Drawn(title=SPREAD, words=words, address=make_address(figure), label=label)


def find_intensity(row: Row) -> float | None:
    """Return a row's FLOP a byte of least memory traffic; None where either is not known."""
    gflop, megabytes = find_number(row, "gflop"), find_number(row, "megabytes")
    return None if not gflop or not megabytes or min(gflop, megabytes) <= 0 else gflop * 1e9 / (megabytes * 1e6)


def find_rate(row: Row) -> float | None:
    """Return a row's GFLOP/s."""
    gflop, images_per_s = find_number(row, "gflop"), find_number(row, "images_per_s")
    return gflop * images_per_s if gflop and images_per_s and min(gflop, images_per_s) > 0 else None


def find_roof(row: Row) -> tuple[str, float, float] | None:
    """Return the roof that a row is held against: its name, a product's GFLOP/s and a copy's GB/s, inf: not known."""
    ceiling = find_number(row, "ceiling", "gflop_per_s")
    if not ceiling or ceiling <= 0:
        return None
    copy = find_number(row, "ceiling", "gbyte_per_s") or np.inf
    parts = [str(row[key]) for key in ("backend", "precision", "device") if row.get(key)]
    return f"{' '.join(parts)}: {format_number(ceiling)} GFLOP/s, copy {format_number(copy)} GB/s", ceiling, copy


def draw_roofline(rows: Sequence[Row]) -> Drawn:
    """Return the figure: GFLOP/s over FLOP/byte, a roof for each backend and precision, a mark a row."""
    roofs = {roof[0]: roof[1:] for roof in map(find_roof, rows) if roof is not None}
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(roofs)}
    marks = []
    for row, name in zip(rows, name_rows(rows), strict=True):
        roof, intensity, rate = find_roof(row), find_intensity(row), find_rate(row)
        if intensity is not None and rate is not None:
            marks.append(Mark(x=intensity, y=rate, name=name, colour=colours[roof[0]] if roof else INK))
    if not roofs or not marks:
        lacking = "ceiling was measured" if not roofs else "row has both its GFLOP and its memory traffic"
        return Drawn(title=ROOFLINE, words=f"Left out: no {lacking}.")
    corners = [ceiling / copy for ceiling, copy in roofs.values() if np.isfinite(copy)]
    low, high = (pick([*corners, *(mark.x for mark in marks)]) for pick in (min, max))
    intensities = np.geomspace(low / 1.25, high * 1.25, 200)
    heights = {name: np.minimum(ceiling, copy * intensities) for name, (ceiling, copy) in roofs.items()}
    with drawing(5.6) as (figure, axes):
        for name, height in heights.items():
            axes.plot(intensities, height, color=colours[name], linewidth=1.8, label=name)
        set_log_axis(axes.xaxis, low, high)
        least = min([mark.y for mark in marks] + [float(height.min()) for height in heights.values()])
        set_log_axis(axes.yaxis, least, max([mark.y for mark in marks] + [ceiling for ceiling, _ in roofs.values()]))
        axes.set(xlabel="FLOP a byte of least memory traffic (logarithmic)", ylabel="GFLOP/s (logarithmic)")
        key = draw_marks(axes, marks)
        add_legend(figure, axes)
        label = "; ".join(f"{mark.name}: {format_number(mark.y)} GFLOP/s" for mark in marks)
        return Drawn(
            title=ROOFLINE, words=_describe(rows, len(marks)), address=make_address(figure), label=label, key=key
        )


def _describe(rows: Sequence[Row], mark_count: int) -> str:
    words = (
        "Flat: the rate of a matrix product through the same backend and threads in the same run; slope: what a copy "
        "reaches. A mark has its roof's colour, and as much room above it as there is to gain."
    )
    best = max(rows, key=lambda row: find_number(row, "ceiling", "share") or 0.0)
    share = find_number(best, "ceiling", "share")
    if share:
        words += f" {best['name']} has the largest share of its ceiling, {format_share(share)}."
    if mark_count < len(rows):
        words += f" {len(rows) - mark_count} of {len(rows)} rows lack GFLOP or memory traffic and have no mark."
    return words

"""Figure: the roofline, rows against what the machine reached in the same run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_rt.bench.read_records import find_number
from ndp_rt.bench.report.drawing import drawing, set_log_axis, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.marks import Drawn, Mark, add_legend, draw_marks, make_handle
from ndp_rt.bench.report.words import format_number, format_share, name_rows
from ndp_rt.evaluate.plots import COLOURS

TITLE = "Roofline"
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))


@dataclass(frozen=True, kw_only=True)
class Roof:
    """What one backend and precision reached: a product's rate and, where measured, a copy's."""

    name: str
    gflop_per_s: float
    gbyte_per_s: float | None

    def reach(self, intensity: Any) -> Any:
        """Return GFLOP/s that the roof allows at an intensity in FLOP/byte."""
        if self.gbyte_per_s is None:
            return np.full_like(np.asarray(intensity, np.float64), self.gflop_per_s)
        return np.minimum(self.gflop_per_s, self.gbyte_per_s * np.asarray(intensity, np.float64))


def find_intensity(row: Mapping[str, Any]) -> float | None:
    """Return a row's FLOP a byte of least memory traffic; None where either is not known."""
    gflop, megabytes = find_number(row, "gflop"), find_number(row, "megabytes")
    return None if not gflop or not megabytes or min(gflop, megabytes) <= 0 else gflop * 1e9 / (megabytes * 1e6)


def find_rate(row: Mapping[str, Any]) -> float | None:
    """Return a row's GFLOP/s: its share of the ceiling where that was recorded, else from images a second."""
    share, ceiling = find_number(row, "ceiling", "share"), find_number(row, "ceiling", "gflop_per_s")
    if share and ceiling and min(share, ceiling) > 0:
        return share * ceiling
    gflop, images_per_s = find_number(row, "gflop"), find_number(row, "images_per_s")
    return gflop * images_per_s if gflop and images_per_s and min(gflop, images_per_s) > 0 else None


def find_roof(row: Mapping[str, Any]) -> Roof | None:
    """Return the roof that a row is held against."""
    ceiling = find_number(row, "ceiling", "gflop_per_s")
    if not ceiling or ceiling <= 0:
        return None
    name = " ".join(str(row[key]) for key in ("backend", "precision") if row.get(key)) or "unnamed backend"
    threads = find_number(row, "threads")
    if threads is not None:
        name += f", {threads:.0f} thread{'' if threads == 1 else 's'}"
    if str(row.get("device") or "cpu") != "cpu":
        name += f", {row['device']}"
    copy = find_number(row, "ceiling", "gbyte_per_s")
    return Roof(name=name, gflop_per_s=ceiling, gbyte_per_s=copy if copy and copy > 0 else None)


def draw_roofline(rows: Sequence[Mapping[str, Any]], figure_id: str) -> Drawn:
    """Return the figure: GFLOP/s over FLOP/byte, a roof for each backend and precision, a mark a row."""
    roofs: dict[str, Roof] = {}
    placed = []
    for row, name in zip(rows, name_rows(rows), strict=True):
        roof, intensity, rate = find_roof(row), find_intensity(row), find_rate(row)
        if roof is not None:
            roofs.setdefault(roof.name, roof)
        if intensity is not None and rate is not None:
            placed.append((name, intensity, rate, "" if roof is None else roof.name))
    if not roofs or not placed:
        lacking = "ceiling was measured" if not roofs else "row has both its GFLOP and its memory traffic"
        return Drawn(title=TITLE, words=f"Left out: no {lacking}.")
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(roofs)}
    marks = [Mark(x=x, y=y, name=name, colour=colours.get(roof, "#666666")) for name, x, y, roof in placed]
    with drawing():
        figure = start_figure(5.4 if len(marks) <= 8 else 6.6)
        axes = figure.add_subplot()
        lines = _draw_roofs(axes, list(roofs.values()), marks, colours)
        axes.set(
            xlabel="FLOP a byte of least memory traffic (logarithmic)", ylabel="GFLOP/s, higher is faster (logarithmic)"
        )
        trim_axes(axes, grid="both")
        add_legend(figure, [_make_roof_handle(i, roof, colours) for i, roof in enumerate(roofs.values())], 2)
        key = draw_marks(figure, axes, marks, lines)
        label = "Roofline. " + "; ".join(
            f"{mark.name}: {format_number(mark.y)} GFLOP/s at {format_number(mark.x)} FLOP a byte" for mark in marks
        )
        svg = write_svg(figure, figure_id, label)
    return Drawn(title=TITLE, words=_describe(rows, len(marks)), svg=svg, key=key)


def _describe(rows: Sequence[Mapping[str, Any]], mark_count: int) -> str:
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


def _draw_roofs(
    axes: Any, roofs: Sequence[Roof], marks: Sequence[Mark], colours: Mapping[str, str]
) -> list[tuple[float, float]]:
    """Draw the roofs over a range that shows all marks and all corners; return points on them."""
    corners = [roof.gflop_per_s / roof.gbyte_per_s for roof in roofs if roof.gbyte_per_s]
    low = min([mark.x for mark in marks] + corners) / 1.6
    high = max([mark.x for mark in marks] + corners) * 1.6
    bottom = min([mark.y for mark in marks] + [float(roof.reach(low)) for roof in roofs])
    set_log_axis(axes.xaxis, low, high)
    set_log_axis(axes.yaxis, bottom, max(roof.gflop_per_s for roof in roofs), margin=1.5)
    intensity = np.geomspace(low / 1.1, high * 1.1, 200)
    points: list[tuple[float, float]] = []
    for index, roof in enumerate(roofs):
        points += [(float(x), float(y)) for x, y in zip(intensity, roof.reach(intensity), strict=True)]
        dash = DASHES[index % len(DASHES)]
        axes.plot(intensity, roof.reach(intensity), color=colours[roof.name], linewidth=1.8, linestyle=dash, zorder=2)
    return points


def _make_roof_handle(index: int, roof: Roof, colours: Mapping[str, str]) -> Any:
    label = f"{roof.name}: {format_number(roof.gflop_per_s)} GFLOP/s"
    if roof.gbyte_per_s is not None:
        label += f", copy {format_number(roof.gbyte_per_s)} GB/s"
    return make_handle(
        label, color=colours[roof.name], linestyle=DASHES[index % len(DASHES)], linewidth=1.8, marker="o"
    )

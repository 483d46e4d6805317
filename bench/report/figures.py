"""The page's figures: how times are spread, speed against accuracy, and the roofline, as images in the page."""

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ndp_rt.bench.read_records import find_number, list_numbers
from ndp_rt.bench.report.overview import METRICS, OURS, Found, Overview, find_fronts, is_reported, list_metrics
from ndp_rt.bench.report.words import (
    KIND_WORDS,
    clean_text,
    format_accuracy,
    format_number,
    format_share,
    name_rows,
    shorten,
)
from ndp_rt.errors import MissingExtraError
from ndp_rt.evaluate.plots import COLOURS

WIDTH_IN = 10.0
INK, FAINT = "#222222", "#d9d9d9"
REMEDY = "The report needs matplotlib and Jinja2: pip install 'ndp-rt[bench]'."
SETTINGS = {
    "svg.hashsalt": "ndp-rt",  # without it ids differ from run to run
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.size": 10.0,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
KIND_COLOURS = {"ndp-rt": COLOURS[0], "same network": COLOURS[1], "other network": COLOURS[4]}
MARK_SIZE = 13.0  # a number of two digits fits inside
NARROW = 8.0  # the highest over the lowest of an axis whose ticks are evenly spaced


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with its caption; without `address` the words say why there is none. `key` names its numbers, from 1."""

    title: str
    words: str
    address: str | None = None  # of the image, with the image in it
    label: str = ""  # what it shows, for those who cannot see it
    key: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A numbered mark, where it stands in data, and its name in the key."""

    x: float
    y: float
    name: str
    colour: str
    is_hollow: bool = False


def import_matplotlib() -> Any:
    """Return matplotlib, without its pyplot.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError(f"{error}. {REMEDY}") from error
    return matplotlib


@contextmanager
def drawing(height_in: float) -> Iterator[tuple[Any, Any]]:
    """Give a Figure and its axes, with matplotlib set up for the page."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the table has the letters
        figure = matplotlib.figure.Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        yield figure, figure.add_subplot()


def make_address(figure: Any) -> str:
    """Return the address of an image that holds the figure as SVG, its letters drawn."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def find_kind_colour(kind: object) -> str:
    """Return the colour of a row's kind; black for one that is not known."""
    return KIND_COLOURS.get(str(kind), COLOURS[7])


def set_log_axis(axis: Any, low: float, high: float) -> None:
    """Make a matplotlib axis logarithmic, around values from low to high, with plain numbers at its ticks."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    low, high = low / 1.25, high * 1.25
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    axis.set_major_locator(MaxNLocator(6) if high / low < NARROW else LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def draw_marks(axes: Any, marks: Sequence[Mark]) -> tuple[str, ...]:
    """Draw marks with their numbers, from 1, and return the names that belong to these."""
    for number, mark in enumerate(marks, 1):
        face, ink = ("white", mark.colour) if mark.is_hollow else (mark.colour, "white")
        looks = {"markersize": MARK_SIZE, "markerfacecolor": face, "markeredgecolor": ink, "zorder": 3}
        axes.plot([mark.x], [mark.y], "o", clip_on=False, **looks)
        axes.annotate(str(number), (mark.x, mark.y), ha="center", va="center_baseline", fontsize=8, color=ink, zorder=4)
    return tuple(mark.name for mark in marks)


def add_legend(figure: Any, axes: Any, kinds: Sequence[object] = ()) -> None:
    """Put a legend below the axes: kinds of rows by their colours, and everything that was drawn with a label."""
    from matplotlib.lines import Line2D

    entries = {
        KIND_WORDS.get(str(kind), str(kind)): Line2D([], [], linestyle="", marker="o", color=find_kind_colour(kind))
        for kind in kinds
    }
    drawn, labels = axes.get_legend_handles_labels()
    entries |= dict(zip(labels, drawn, strict=True))
    figure.legend(entries.values(), map(clean_text, entries), loc="outside lower center", ncols=2)


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
            title=ROOFLINE,
            words=_describe_roofline(rows, len(marks)),
            address=make_address(figure),
            label=label,
            key=key,
        )


def _describe_roofline(rows: Sequence[Row], mark_count: int) -> str:
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


TITLE = "Speed and accuracy"


def draw_accuracies(found: Sequence[Found]) -> list[Drawn]:
    """Return a figure for image ROCAUC and one for AUPRO; for pixel ROCAUC where neither has data."""
    wanted = list_metrics(found)
    if not wanted:
        words = "Left out: no row has an accuracy. Run `ndp-rt bench` with --data DIR to measure it."
        return [Drawn(title=TITLE, words=words)]
    return [draw_metric(found, metric) for metric in wanted]


def draw_metric(found: Sequence[Found], metric: str) -> Drawn:
    """Return the figure of one metric; one row at least has it."""
    points = [(one, point) for one in found if (point := one.find_point(metric)) is not None]
    marks = [
        Mark(x=x, y=y, name=one.name, colour=find_kind_colour(one.row.get("kind")), is_hollow=is_reported(one.row))
        for one, (x, y) in points
    ]
    with drawing(5.6) as (figure, axes):
        for front in (front for front in find_fronts(found, metric) if len(front) > 1):
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
        title, words = f"{TITLE}: {METRICS[metric]}", _describe_accuracies(found, metric, marks)
        return Drawn(title=title, words=words, address=make_address(figure), label=label, key=key)


def _describe_accuracies(found: Sequence[Found], metric: str, marks: Sequence[Mark]) -> str:
    sources = dict.fromkeys(one.source for one in found if one.find_point(metric) is not None)
    missing = len(found) - len(marks)
    words = f"Where the accuracies are from: {'; '.join(sources)}."
    if any(mark.is_hollow for mark in marks):
        words += " Hollow marks: reported by others, from other data than measured ones."
    if missing:
        words += f" {missing} row{' has' if missing == 1 else 's have'} no {METRICS[metric]} and no mark."
    return words


def draw_overview(overview: Overview) -> list[Drawn]:
    """Return a figure for each metric and each data that accuracies were measured on; reported ones are in each."""
    measured = dict.fromkeys(one.source for one in overview.found if not is_reported(one.row))
    warnings = " ".join(warn_runs(overview))
    figures = []
    for source in measured or {"": None}:
        shown = [one for one in overview.found if is_reported(one.row) or one.source == source]
        for metric in list_metrics(shown):
            drawn = draw_metric(shown, metric)
            title = drawn.title + (f", {source}" if len(measured) > 1 else "")
            figures.append(replace(drawn, title=title, words=f"{drawn.words} {warnings}"))
    return figures


def warn_runs(overview: Overview) -> Iterator[str]:
    """Return what has to be said of times that were not taken in one run."""
    runs = dict.fromkeys(one.where for one in overview.found)
    if len(runs) > 1:
        days = sorted({one.created[:10] for one in overview.found})
        when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
        yield (
            f"The times are of {len(runs)} runs {when}: the same machine may be slower in one of them, so ratios "
            "hold within a run only."
        )
    machines = dict.fromkeys(one.machine for one in overview.found)
    if len(machines) > 1:
        yield f"They are of different machines ({'; '.join(machines)}), each with a front of its own."

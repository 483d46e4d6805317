"""Figure: how cost grows along the axis of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section, list_points
from ndp_rt.bench.report.drawing import drawing, make_label, set_log_axis, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.marks import Drawn, add_legend, make_handle
from ndp_rt.bench.report.words import AXIS_WORDS, format_number, format_plain
from ndp_rt.evaluate.plots import COLOURS
from ndp_rt.evaluate.record import Record

# What a query's time is multiplied by where cost is linear, for `value` over the first one.
LATENCY_GROWTH = {"batch": 1.0, "threads": -1.0, "size": 2.0, "streams": 0.0}
SHAPES = ("o", "s", "^", "D")
TITLE = "Growth"

Point = Mapping[str, Any]


def find_axis(record: Record) -> str:
    """Return the sweep's axis as the record has it."""
    return str(find_section(record, "sweep").get("axis") or "value")


def group_points(record: Record) -> dict[str, list[Point]]:
    """Return a sweep's points by series; one without a name is ''."""
    groups: dict[str, list[Point]] = {}
    for point in list_points(record):
        groups.setdefault(str(point.get("series") or ""), []).append(point)
    return groups


def draw_growth(record: Record, figure_id: str) -> Drawn:
    """Return the figure: throughput and latency along the axis, each with what linear growth would be."""
    axis = find_axis(record)
    groups = {
        name: points
        for name, points in group_points(record).items()
        if all(_is_drawable(point) for point in points) and len(points) > 1
    }
    title = f"{TITLE} with {AXIS_WORDS.get(axis, axis).split(',')[0]}"
    if not groups:
        return Drawn(title=title, words="Left out: the sweep has fewer than two points with throughput and latency.")
    with drawing():
        figure = start_figure(4.6)
        left, right = figure.subplots(1, 2)
        for index, points in enumerate(groups.values()):
            looks = {"color": COLOURS[index % len(COLOURS)], "marker": SHAPES[index % len(SHAPES)], "markersize": 6}
            _draw_throughput(left, points, looks)
            _draw_latency(right, points, axis, looks)
        _set_limits(left, right, [point for points in groups.values() for point in points], groups, axis)
        for axes, what in ((left, "images/s, higher is faster"), (right, "latency of a query, ms, lower is faster")):
            axes.set(xlabel=make_label(AXIS_WORDS.get(axis, axis)), ylabel=what)
            trim_axes(axes, grid="both")
        handles = [
            make_handle(
                f"{name}: p50" if name else "throughput, p50",
                color=COLOURS[index % len(COLOURS)],
                marker=SHAPES[index % len(SHAPES)],
            )
            for index, name in enumerate(groups)
        ]
        handles += [
            make_handle("p99", color="#666666", linewidth=0.9),
            make_handle("linear from the first point", color="#666666", linestyle=(0, (5, 3)), linewidth=1.2),
        ]
        add_legend(figure, handles, 5)
        label = f"{title}. " + "; ".join(
            f"{name} {format_plain(_value(point))}: {format_number(find_number(point, 'images_per_s'))} images/s, "
            f"{format_number(find_number(point, 'latency', 'p50_ms'))} ms".strip()
            for name, points in groups.items()
            for point in points
        )
        svg = write_svg(figure, figure_id, label)
    return Drawn(title=title, words="Both axes are logarithmic, so linear growth is a straight line.", svg=svg)


def _is_drawable(point: Point) -> bool:
    numbers = (find_number(point, "value"), find_number(point, "images_per_s"), find_number(point, "latency", "p50_ms"))
    return all(number is not None and number > 0 for number in numbers)


def _value(point: Point) -> float:
    return find_number(point, "value") or 0.0


def find_linear_rates(points: Sequence[Point]) -> list[float]:
    """Return images a second at each point if growth were linear: the measured ones over their efficiency."""
    rates = []
    for point in points:
        rate, efficiency = find_number(point, "images_per_s"), find_number(point, "efficiency")
        rates.append(rate / efficiency if rate and efficiency and efficiency > 0 else float("nan"))
    return rates


def find_linear_times(points: Sequence[Point], axis: str) -> list[float]:
    """Return a query's p50 in ms at each point if cost grew linearly from the first one on."""
    first = find_number(points[0], "latency", "p50_ms") or float("nan")
    power = LATENCY_GROWTH.get(axis, 1.0)
    return [first * float((_value(point) / _value(points[0])) ** power) for point in points]


def _draw_throughput(axes: Any, points: Sequence[Point], looks: Mapping[str, Any]) -> None:
    values = [_value(point) for point in points]
    axes.plot(values, find_linear_rates(points), color=looks["color"], linestyle=(0, (5, 3)), linewidth=1.2)
    axes.plot(values, [find_number(point, "images_per_s") for point in points], linewidth=1.8, **looks)


def _draw_latency(axes: Any, points: Sequence[Point], axis: str, looks: Mapping[str, Any]) -> None:
    values = [_value(point) for point in points]
    axes.plot(values, find_linear_times(points, axis), color=looks["color"], linestyle=(0, (5, 3)), linewidth=1.2)
    axes.plot(values, [find_number(point, "latency", "p50_ms") for point in points], linewidth=1.8, **looks)
    highest = [find_number(point, "latency", "p99_ms") for point in points]
    axes.plot(values, [float("nan") if ms is None else ms for ms in highest], color=looks["color"], linewidth=0.9)


def _set_limits(
    left: Any, right: Any, points: Sequence[Point], groups: Mapping[str, Sequence[Point]], axis: str
) -> None:
    values = sorted({_value(point) for point in points})
    rates = [find_number(point, "images_per_s") for point in points]
    times = [find_number(point, "latency", key) for point in points for key in ("p50_ms", "p99_ms")]
    for group in groups.values():
        rates += [rate for rate in find_linear_rates(group) if rate == rate]
        times += [time for time in find_linear_times(group, axis) if time == time]
    for axes, heights in ((left, rates), (right, times)):
        present = [height for height in heights if height]
        set_log_axis(axes.yaxis, min(present), max(present), margin=1.25)
        set_log_axis(axes.xaxis, values[0], values[-1], margin=1.15)
        shown = values if len(values) <= 10 else values[:: -(-len(values) // 10)]
        axes.set_xticks(shown, [format_plain(value) for value in shown])

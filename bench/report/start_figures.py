"""Figures: a cold start's parts, and the first image after a pause."""

from collections.abc import Mapping
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section
from ndp_rt.bench.report.drawing import drawing, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.marks import Drawn, add_legend, make_patch
from ndp_rt.bench.report.stage_figure import draw_bars
from ndp_rt.bench.report.words import COLD_WORDS, IDLE_WORDS, format_number
from ndp_rt.evaluate.plots import COLOURS
from ndp_rt.evaluate.record import Record

QUANTILES = {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99"}
COLD_TITLE, IDLE_TITLE = "Parts of a cold start", "The first image after a pause"


def draw_cold(record: Record, figure_id: str) -> Drawn:
    """Return the figure: a bar for starts with a cached engine and one without, split into parts by their medians."""
    bars = []
    for key, words in COLD_WORDS.items():
        parts = find_section(find_section(find_section(record, "cold"), key), "parts")
        medians = {str(name): find_number(parts, name, "p50_ms") for name in parts}
        shown = {name: value for name, value in medians.items() if value}
        if shown:
            bars.append((words, shown))
    if not bars:
        return Drawn(title=COLD_TITLE, words="Left out: no start was measured.")
    words = "Medians of each part; their sum at the right may differ a little from the median of whole starts."
    return Drawn(title=COLD_TITLE, words=words, svg=draw_bars(bars, figure_id, "time to the first decision"))


def draw_idle(record: Record, figure_id: str) -> Drawn:
    """Return the figure: percentiles of the first image's latency beside those of images one after another."""
    idle = find_section(record, "idle")
    series = {key: find_section(idle, key) for key in IDLE_WORDS if find_number(idle, key, "p50_ms") is not None}
    if not series:
        return Drawn(title=IDLE_TITLE, words="Left out: no image was timed.")
    with drawing():
        figure = start_figure(3.4)
        axes = figure.add_subplot()
        _draw_groups(axes, series)
        axes.set_xlabel("latency, ms")
        trim_axes(axes)
        axes.tick_params(axis="y", length=0)
        handles = [make_patch(IDLE_WORDS[key], facecolor=_find_colour(key)) for key in series]
        add_legend(figure, handles, 2)
        label = f"{IDLE_TITLE}. " + "; ".join(
            f"{IDLE_WORDS[key]}: p50 {format_number(find_number(latency, 'p50_ms'))} ms, "
            f"p99 {format_number(find_number(latency, 'p99_ms'))} ms"
            for key, latency in series.items()
        )
        return Drawn(title=IDLE_TITLE, words="", svg=write_svg(figure, figure_id, label))


def _find_colour(key: str) -> str:
    return COLOURS[1] if key == "first" else COLOURS[0]


def _draw_groups(axes: Any, series: Mapping[str, Mapping[str, Any]]) -> None:
    height = 0.8 / len(series)
    longest = max(find_number(latency, quantile) or 0.0 for latency in series.values() for quantile in QUANTILES)
    for index, (key, latency) in enumerate(series.items()):
        for y, quantile in enumerate(QUANTILES):
            value = find_number(latency, quantile)
            if value is None:
                continue
            middle = y + (index - (len(series) - 1) / 2) * height
            axes.barh(middle, value, height=height * 0.92, color=_find_colour(key))
            axes.text(value + 0.008 * longest, middle, f"{format_number(value)} ms", va="center_baseline", fontsize=9)
    axes.set_yticks(range(len(QUANTILES)), list(QUANTILES.values()))
    axes.set_ylim(len(QUANTILES) - 0.5, -0.5)
    axes.set_xlim(0, longest * 1.12)

"""Figure: where an image's time goes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ndp_rt.bench.read_records import find_number, find_section
from ndp_rt.bench.report.drawing import drawing, make_label, start_figure, trim_axes, write_svg
from ndp_rt.bench.report.marks import Drawn, add_legend, make_patch
from ndp_rt.bench.report.words import format_number, make_sentence, name_rows
from ndp_rt.evaluate.plots import COLOURS

TITLE = "Where the time goes"
# Neighbours in a bar differ in lightness too, for print in grey.
STAGE_COLOURS = {
    "preprocess": COLOURS[2],
    "upload": COLOURS[7],
    "encoder": COLOURS[5],
    "attention": COLOURS[1],
    "decoder": COLOURS[0],
    "segmentation": COLOURS[3],
    "engine": "#bbbbbb",
    "postprocess": COLOURS[4],
    "download": COLOURS[6],
}
OTHER_COLOURS = ("#7f7f7f", "#e6d690", "#4b4b8f", "#dddddd")  # of parts without a colour of their own
ABSOLUTE_SPAN = 6.0  # the longest bar over the shortest; beyond it bars show shares
LABEL_SHARE = 0.055  # of the axis that a number in a bar needs


def list_stages(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a row's stages in ms, those above 0."""
    stages = find_section(row, "stages_ms")
    found = {str(name): find_number(stages, name) for name in stages}
    return {name: value for name, value in found.items() if value is not None and value > 0}


def draw_stages(rows: Sequence[Mapping[str, Any]], figure_id: str) -> Drawn:
    """Return the figure: a stacked bar a row, of times, or of shares where the rows' times lie far apart."""
    split = [(name, list_stages(row)) for name, row in zip(name_rows(rows), rows, strict=True)]
    bars = [(name, stages) for name, stages in split if stages]
    if not bars:
        return Drawn(title=TITLE, words="Left out: no row's time was split by stage.")
    sources = dict.fromkeys(str(row["stages_source"]) for row in rows if row.get("stages_source") and list_stages(row))
    words = " ".join(make_sentence(source) for source in sources)
    if len(bars) < len(rows):
        words += f" {len(rows) - len(bars)} of {len(rows)} rows are not split and have no bar."
    return Drawn(title=TITLE, words=words.strip(), svg=draw_bars(bars, figure_id, "an image's time"))


def draw_bars(bars: Sequence[tuple[str, Mapping[str, float]]], figure_id: str, what: str) -> Any:
    """Return stacked bars of milliseconds as an <svg> element, each with its total at the right.

    Args:
        bars: name and {part: ms} of each, parts in order, none empty.
        figure_id: as `write_svg` has it.
        what: whose time it is, for the axis.
    """
    totals = [sum(parts.values()) for _, parts in bars]
    is_absolute = max(totals) / min(totals) <= ABSOLUTE_SPAN
    names = list(dict.fromkeys(part for part in STAGE_COLOURS if any(part in parts for _, parts in bars)))
    others = dict.fromkeys(part for _, parts in bars for part in parts if part not in STAGE_COLOURS)
    colours = STAGE_COLOURS | {part: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, part in enumerate(others)}
    if others and not names:  # a cold start's parts: the full palette
        colours = {part: COLOURS[(0, 5, 2, 1, 4, 3, 6, 7)[i % 8]] for i, part in enumerate(others)}
    with drawing():
        figure = start_figure(1.2 + (0.46 if len(bars) <= 10 else 0.36) * len(bars))
        axes = figure.add_subplot()
        reach = max(totals) if is_absolute else 100.0
        for y, ((_, parts), total) in enumerate(zip(bars, totals, strict=True)):
            scale = 1.0 if is_absolute else 100.0 / total
            left = 0.0
            for part, value in parts.items():
                width = value * scale
                axes.barh(y, width, left=left, height=0.68, color=colours[part], edgecolor="white", linewidth=0.8)
                number = format_number(value)
                if width / reach > LABEL_SHARE * max(1.0, len(number) / 4):
                    colour = pick_ink(colours[part])
                    axes.text(
                        left + width / 2, y, number, ha="center", va="center_baseline", fontsize=8.5, color=colour
                    )
                left += width
            axes.text(left + 0.01 * reach, y, f"{format_number(total)} ms", va="center_baseline", fontsize=9)
        axes.set_yticks(range(len(bars)), [make_label(name) for name, _ in bars], fontsize=9)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, reach * 1.12)
        axes.set_xlabel(f"{what}, ms" if is_absolute else f"share of {what}, %; the numbers are ms")
        if not is_absolute:
            axes.set_xticks(range(0, 101, 20))
        trim_axes(axes)
        axes.tick_params(axis="y", length=0)
        legend = [make_patch(part, facecolor=colours[part], edgecolor="white") for part in (*names, *others)]
        add_legend(figure, legend, 9)
        label = f"{what.capitalize()} by part. " + "; ".join(
            f"{name}: " + ", ".join(f"{part} {format_number(value)} ms" for part, value in parts.items())
            for name, parts in bars
        )
        return write_svg(figure, figure_id, label)


def pick_ink(colour: str) -> str:
    """Return black or white, whichever reads better on a colour (WCAG's relative luminance)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#ffffff"

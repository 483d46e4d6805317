"""What a figure of the page is, and marks with names for those that scatter them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndp_rt.bench.report.drawing import INK, import_matplotlib, make_label
from ndp_rt.bench.report.markup import Markup
from ndp_rt.bench.report.placement import place_labels
from ndp_rt.evaluate.plots import COLOURS

KIND_COLOURS = {"ndp-rt": COLOURS[0], "same network": COLOURS[1], "other network": COLOURS[4]}
MARK_RADIUS = 4.5
LEGEND_LENGTH = 72  # letters of an entry: two entries share a line


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with its caption; without `svg` the words say why there is none. `key` names numbered marks, from 1."""

    title: str
    words: str
    svg: Markup | None = None
    key: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A mark to be named: where it stands in data, and how it looks."""

    x: float
    y: float
    name: str
    colour: str
    shape: str = "o"
    is_hollow: bool = False


def find_kind_colour(kind: object) -> str:
    """Return the colour of a row's kind; black for one that is not known."""
    return KIND_COLOURS.get(str(kind), COLOURS[7])


def draw_marks(
    figure: Any, axes: Any, marks: Sequence[Mark], lines: Sequence[tuple[float, float]] = ()
) -> tuple[str, ...]:
    """Draw marks with their names, or with numbers where the names do not fit; return the key of the numbers.

    Legends, limits and scales are set before: the layout is fixed here. `lines` are points of drawn lines, in data,
    which names leave free if they can.
    """
    for mark in marks:
        axes.plot(
            [mark.x],
            [mark.y],
            mark.shape,
            markersize=2 * MARK_RADIUS - 1,
            markerfacecolor="white" if mark.is_hollow else mark.colour,
            markeredgecolor=mark.colour,
            markeredgewidth=1.6,
            clip_on=False,
            zorder=3,
        )
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    names = [make_label(mark.name) for mark in marks]
    if _label_marks(figure, axes, marks, names, lines, must_fit=True):
        return ()
    numbers = [str(number) for number in range(1, len(marks) + 1)]
    _label_marks(figure, axes, marks, numbers, lines, must_fit=False)
    return tuple(mark.name for mark in marks)


def _label_marks(
    figure: Any,
    axes: Any,
    marks: Sequence[Mark],
    labels: Sequence[str],
    lines: Sequence[tuple[float, float]],
    *,
    must_fit: bool,
) -> bool:
    """Write labels beside marks; False and nothing written where they must fit and do not."""
    renderer = figure.canvas.get_renderer()
    texts = [
        axes.annotate(
            label,
            (mark.x, mark.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            annotation_clip=False,
        )
        for mark, label in zip(marks, labels, strict=True)
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    centres = axes.transData.transform([(mark.x, mark.y) for mark in marks])
    frame = axes.get_window_extent(renderer)
    bounds = (frame.x0 + 2, frame.y0 + 2, figure.bbox.x1 - 2, figure.bbox.y1 - 2)
    placement = place_labels(
        centres,
        np.array([(extent.width, extent.height) for extent in extents]),
        bounds,
        MARK_RADIUS,
        axes.transData.transform(lines) if len(lines) else np.zeros((0, 2)),
    )
    if must_fit and placement.collision_count:
        for text in texts:
            text.remove()
        return False
    for text, mark, centre, box, end, is_far in zip(
        texts, marks, centres, placement.boxes, placement.ends, placement.is_far, strict=True
    ):
        text.xyann = ((box[0] + box[2]) / 2 - centre[0], (box[1] + box[3]) / 2 - centre[1])
        if is_far:
            looks = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 0, "shrinkB": MARK_RADIUS}
            axes.annotate(
                "",
                (mark.x, mark.y),
                xytext=tuple(end - centre),
                textcoords="offset points",
                annotation_clip=False,
                arrowprops=looks,
            )
    return True


def make_handle(label: str, **looks: Any) -> Any:
    """Return a legend's entry without data."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=make_label(label, LEGEND_LENGTH), **looks)


def make_patch(label: str, **looks: Any) -> Any:
    """Return a legend's entry for an area."""
    from matplotlib.patches import Patch

    return Patch(label=make_label(label, LEGEND_LENGTH), **looks)


def add_legend(figure: Any, handles: Sequence[Any], columns: int) -> None:
    """Put a legend below the axes."""
    import_matplotlib()
    figure.legend(handles=list(handles), loc="outside lower center", ncols=min(columns, len(handles)), handlelength=2.6)

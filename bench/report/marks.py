"""What a figure of the page is, and marks with names for those that scatter them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.report.drawing import INK, make_label
from ndp_rt.evaluate.plots import COLOURS

if TYPE_CHECKING:
    from markupsafe import Markup

FloatArray = NDArray[np.float64]
KIND_COLOURS = {"ndp-rt": COLOURS[0], "same network": COLOURS[1], "other network": COLOURS[4]}
MARK_RADIUS = 4.5
LEGEND_LENGTH = 72  # letters of an entry: two entries share a line
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (6.0, 12.0, 20.0, 30.0, 42.0, 56.0)
FAR = DISTANCES[1] + 2
TRY_COUNT = 8
GAP = 1.5  # between boxes
# A collision outweighs every number of unclear places, an unclear or a crossed place every distance.
COLLISION, UNCLEAR = 1000.0, 20.0


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with its caption; without `svg` the words say why there is none. `key` names numbered marks, from 1."""

    title: str
    words: str
    svg: "Markup | None" = None
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
    if _label_marks(figure, axes, marks, [make_label(mark.name) for mark in marks], lines, must_fit=True):
        return ()
    _label_marks(figure, axes, marks, [str(number + 1) for number in range(len(marks))], lines, must_fit=False)
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
    """Write labels beside marks, with a line where they stand far; False where they must fit and do not."""
    renderer = figure.canvas.get_renderer()
    looks = {"ha": "center", "va": "center", "fontsize": 9, "color": INK, "annotation_clip": False}
    places = [(mark.x, mark.y) for mark in marks]
    texts = [
        axes.annotate(label, place, xytext=(0, 0), textcoords="offset points", **looks)
        for label, place in zip(labels, places, strict=True)
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    centres = axes.transData.transform(places)
    frame = axes.get_window_extent(renderer)
    bounds = (frame.x0 + 2, frame.y0 + 2, figure.bbox.x1 - 2, figure.bbox.y1 - 2)
    sizes = np.array([(extent.width, extent.height) for extent in extents])
    drawn = axes.transData.transform(lines) if len(lines) else np.zeros((0, 2))
    boxes, collision_count = place_labels(centres, sizes, bounds, drawn)
    if must_fit and collision_count:
        for text in texts:
            text.remove()
        return False
    for text, centre, box in zip(texts, centres, boxes, strict=True):
        text.xyann = ((box[0] + box[2]) / 2 - centre[0], (box[1] + box[3]) / 2 - centre[1])
        if np.hypot(*(np.clip(centre, box[:2], box[2:]) - centre)) > FAR:
            arrow = {"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 0, "shrinkB": MARK_RADIUS}
            end = tuple(np.clip(centre, box[:2], box[2:]) - centre)
            axes.annotate("", text.xy, xytext=end, textcoords="offset points", annotation_clip=False, arrowprops=arrow)
    return True


def place_labels(
    marks: FloatArray, sizes: FloatArray, bounds: Sequence[float], lines: FloatArray
) -> tuple[FloatArray, int]:
    """Return a box for each label, [n, 4] as left, bottom, right, top, and how many could not be kept free.

    A label stands near its mark, inside bounds, over no mark or other label. Labels are placed one after the other,
    each at the cheapest of some fifty places; the best of several orders is kept. The same arguments always have the
    same result.

    Args:
        marks: float64 [n, 2], centres.
        sizes: float64 [n, 2], widths and heights.
        bounds: left, bottom, right, top.
        lines: float64 [k, 2], points of drawn lines, which labels leave free if they can.
    """
    every = [_list_places(index, marks, size, bounds, lines) for index, size in enumerate(sizes)]
    rng = np.random.default_rng(0)
    # Crowded marks first: they have the fewest places.
    orders = [np.argsort([-np.min(costs) - np.mean(costs) for _, costs in every])]
    orders += [rng.permutation(len(marks)) for _ in range(TRY_COUNT if len(marks) > 1 else 0)]
    found = []
    for order in orders:
        chosen, costs = np.full((len(marks), 4), np.inf), np.zeros(len(marks))
        for index in order:
            boxes, own = every[index]
            total = own + COLLISION * np.sum(_touches(boxes, chosen), axis=1)
            chosen[index], costs[index] = boxes[np.argmin(total)], np.min(total)
        found.append((float(costs.sum()), int(np.sum(costs >= COLLISION)), chosen))
    _, collision_count, best = min(found, key=lambda one: one[0])
    return best, collision_count


def _list_places(
    index: int, marks: FloatArray, size: FloatArray, bounds: Sequence[float], lines: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the places of one label [k, 4], and what each costs as long as there is no other label."""
    mark, others = marks[index], np.delete(marks, index, axis=0)
    boxes = []
    for distance in DISTANCES:
        for x, y in DIRECTIONS:
            reach = distance * (0.75 if x and y else 1.0) + MARK_RADIUS / 2
            centre = mark + np.array([x * (reach + size[0] / 2), y * (reach + size[1] / 2)])
            boxes.append([*(centre - size / 2), *(centre + size / 2)])
    places = np.array(boxes)
    left, bottom, right, top = bounds
    hits = np.sum(_touches(places, np.concatenate([others - MARK_RADIUS, others + MARK_RADIUS], axis=1)), axis=1)
    hits += (places[:, 0] < left) | (places[:, 1] < bottom) | (places[:, 2] > right) | (places[:, 3] > top)
    gaps = [np.hypot(*(np.clip(one, places[:, :2], places[:, 2:]) - one).T) for one in (mark, *others)]
    is_unclear = np.min([np.full(len(places), np.inf), *gaps[1:]], axis=0) < gaps[0] + 3
    is_crossed = np.any(_touches(places, np.concatenate([lines, lines], axis=1), gap=0.0), axis=1)
    costs = COLLISION * hits + UNCLEAR * (is_unclear | is_crossed) + np.arange(len(places)) / len(DIRECTIONS)
    return places, costs


def _touches(boxes: FloatArray, others: FloatArray, gap: float = GAP) -> NDArray[np.bool_]:
    """Return for boxes [k, 4] and others [m, 4] which are closer than `gap`: [k, m]."""
    a, b = boxes[:, None], others[None]
    apart = (a[..., :2] >= b[..., 2:] + gap) | (b[..., :2] >= a[..., 2:] + gap)
    return np.asarray(~apart.any(axis=-1), dtype=np.bool_)


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
    figure.legend(handles=list(handles), loc="outside lower center", ncols=min(columns, len(handles)), handlelength=2.6)

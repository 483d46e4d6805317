"""Pictures in the page: matplotlib's figures as images that need no other file."""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ndp_rt.bench.report.words import KIND_WORDS, clean_text
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

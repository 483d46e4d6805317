"""Figures as SVG that can stand in a page beside others: text as text, no script, no address, ids of their own."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ndp_rt.bench.report.words import MAX_NAME_LENGTH, format_plain, shorten
from ndp_rt.errors import MissingExtraError

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH_IN = 10.0
INK, FAINT = "#222222", "#d9d9d9"
REMEDY = "The report needs matplotlib and Jinja2: pip install 'ndp-rt[bench]'."
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ndp-rt",  # without it ids differ from run to run
    "text.parse_math": False,  # a name may hold a dollar sign
    "path.simplify": False,  # it would drop the lines without length that points are drawn with
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10.0,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
}
# What XML and HTML do not take: control characters but for tab and line ends, and halves of surrogate pairs.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
TAG = re.compile("<[^>]*>")
# The metadata are addresses; the style is for every element, also those of the page around it.
UNWANTED = re.compile("<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
REFERENCE = re.compile(r'(?<= )id="|href="#|url\(#')
LONG_DECIMAL = re.compile(r"-?\d+\.\d{3,}")


def import_matplotlib() -> Any:
    """Return matplotlib, without its pyplot.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.backends.backend_svg
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError(f"{error}. {REMEDY}") from error
    return matplotlib


@contextmanager
def drawing() -> Iterator[None]:
    """Set matplotlib up for the page's figures, and set it back."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has the letters
        yield


def start_figure(height_in: float) -> Any:
    """Return an empty Figure, WIDTH_IN wide, whose pixels are points, with a canvas that can measure text."""
    matplotlib = import_matplotlib()
    figure = matplotlib.figure.Figure(figsize=(WIDTH_IN, height_in), dpi=72, layout="constrained")
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    return figure


def write_svg(figure: Any, figure_id: str, label: str) -> "Markup":
    """Return a figure as an <svg> element.

    Args:
        figure: from `start_figure`.
        figure_id: unique in the page; every id inside begins with it.
        label: what the figure shows, for those who cannot see it.
    """
    from markupsafe import Markup

    matplotlib = import_matplotlib()
    stream = io.BytesIO()
    matplotlib.backends.backend_svg.FigureCanvasSVG(figure).print_svg(stream)
    _, head, body = re.split("(<svg .*?>)", stream.getvalue().decode(), maxsplit=1, flags=re.DOTALL)
    _, _, width, height = re.findall('viewBox="(.*?)"', head)[0].split()
    body = TAG.sub(lambda tag: clean_tag(tag[0], figure_id), UNWANTED.sub("", body))
    start = Markup('<svg id="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return start.format(figure_id, width, height, clean_text(label)) + Markup(body.strip())


def clean_tag(tag: str, figure_id: str) -> str:
    """Return a tag with shorter numbers, and the figure's id before its own and before those it refers to."""
    tag = REFERENCE.sub(lambda found: f"{found[0]}{figure_id}-", tag.replace("xlink:", ""))
    return LONG_DECIMAL.sub(lambda found: format_plain(round(float(found[0]), 2)).replace(",", ""), tag)


def clean_text(text: str) -> str:
    """Return text with a replacement mark for each character that a page cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)


def make_label(name: str, length: int = MAX_NAME_LENGTH) -> str:
    """Return a name as a figure can hold it: one line, not too long, no forbidden character."""
    return shorten(clean_text(name), length)


def choose_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis from low to high, both above 0; three at least if possible."""
    if high / low < 8:
        from matplotlib.ticker import MaxNLocator

        return [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    steps: Sequence[int] = (1, 2, 5) if high / low < 200 else (1, 3) if high / low < 3000 else (1,)
    ticks = [step * 10.0**power for power in range(-12, 16) for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def set_log_axis(axis: Any, low: float, high: float, margin: float = 1.1) -> None:
    """Make a matplotlib axis logarithmic from low to high with plain numbers at its ticks."""
    low, high = low / margin, high * margin
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    ticks = choose_ticks(low, high)
    axis.set_ticks(ticks, [format_plain(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def trim_axes(axes: Any, grid: str = "x") -> None:
    """Leave out the frame's unneeded sides and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=FAINT, linewidth=0.6)
    axes.tick_params(length=3)

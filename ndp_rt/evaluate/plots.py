"""Draws the scores of an evaluation."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import MissingExtraError
from ndp_rt.evaluate.dataset import GOOD
from ndp_rt.evaluate.metrics import REMEDY
from ndp_rt.evaluate.run import Evaluation
from ndp_rt.files import storing

# Okabe and Ito's colours, which people with any colour vision tell apart; the first is the good images'.
COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#8C510A", "#000000")
JITTER = 0.28


def spread_points(count: int) -> NDArray[np.float64]:
    """Return offsets across a row for `count` points in order: even, always the same, and no two neighbours close."""
    golden = 0.6180339887498949
    return np.asarray((np.arange(count) * golden % 1.0 - 0.5) * 2 * JITTER, dtype=np.float64)


def format_figure(value: float | None) -> str:
    """Return a ROC area for a label, a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def draw_scores(evaluation: Evaluation, title: str, path: Path) -> None:
    """Write a PNG with one row of points for each kind, good images on top, and the threshold as a line.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: the file could not be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"{error}. {REMEDY}") from error
    kinds = [GOOD, *(figures.kind for figures in evaluation.kinds)]
    areas = {figures.kind: figures.image_rocauc for figures in evaluation.kinds}
    figure = Figure(figsize=(9, 1.6 + 0.62 * len(kinds)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # draws to memory; no display and no global state of pyplot
    axes = figure.add_subplot()
    labels = []
    for row, kind in enumerate(kinds):
        scores = np.sort(evaluation.scores_of(kind))
        colour = COLOURS[0] if row == 0 else COLOURS[1 + (row - 1) % (len(COLOURS) - 1)]
        axes.scatter(scores, row + spread_points(scores.size), s=16, color=colour, alpha=0.65, linewidths=0, zorder=3)
        if scores.size:
            axes.plot([np.median(scores)] * 2, [row - 0.38, row + 0.38], color="#222222", linewidth=1.4, zorder=4)
        suffix = "" if row == 0 else f"\nROCAUC {format_figure(areas[kind])}"
        name = kind.encode("utf-8", "backslashreplace").decode()  # of a folder, whose name may be no UTF-8
        labels.append(f"{name}  ({scores.size}){suffix}")
    if evaluation.threshold is not None:
        axes.axvline(evaluation.threshold, color="#B00000", linestyle="--", linewidth=1.2, zorder=2)
        axes.annotate(
            f" threshold {evaluation.threshold:.4g}",
            (evaluation.threshold, 1.0),
            xycoords=("data", "axes fraction"),
            ha="left",
            va="bottom",
            fontsize=8,
            color="#B00000",
        )
    axes.set_yticks(range(len(kinds)), labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlabel("score (bar: median)")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.suptitle(title, fontsize=11, parse_math=False)
    with storing(path):
        figure.savefig(path)

"""Compares engines with a bundle's golden vectors, whatever runs them; needs NumPy alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.open import Bundle, Golden
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError

RELATIVE = "is_relative"  # of the manifest's `golden`


@dataclass(frozen=True, kw_only=True)
class GoldenReport:
    """The largest differences from the golden vectors, and what is allowed."""

    vector_count: int
    map_max_abs_difference: float
    map_tolerance: float
    score_max_abs_difference: float
    score_tolerance: float


def find_allowed(bundle: Bundle, golden: Golden, precision: str) -> tuple[float, float]:
    """Return by how much maps and scores of an engine may differ from the golden vectors.

    Tolerances are for maps up to 1. Where the manifest says so they are shares of the largest value, as of a model that
    came from elsewhere, whose maps and scores have ranges of their own.
    """
    sizes = [float(np.abs(values).max()) for values in (golden.map, golden.score)]
    if not bundle.manifest.golden.get(RELATIVE):
        sizes = [max(1.0, *sizes)] * 2
    map_size, score_size = (size or 1.0 for size in sizes)  # nothing can be a share of an empty map
    return (
        find_tolerance("engine.map", precision).absolute * map_size,
        find_tolerance("engine.score", precision).absolute * score_size,
    )


def compare_golden(
    bundle: Bundle,
    golden: Golden,
    run: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    *,
    precision: str,
    batch: int,
    vector_count: int | None = None,
) -> GoldenReport:
    """Compare what `run` gives with the golden vectors.

    Args:
        golden: its vectors.
        run: takes float32 [batch, 3, h, w]; returns maps before smoothing [batch, 1, h, w] and scores [batch].
        precision: that `run` computes in.
        batch: of `run`.
        vector_count: how many vectors to run, from the first; None: all.

    Raises:
        EngineError: a map or score differs by more than `ndp_rt.engines.tolerances` allows; the message says by how
            much.
    """
    count = len(golden.image) if vector_count is None else min(vector_count, len(golden.image))
    map_difference = score_difference = 0.0
    for start in range(0, count, batch):
        rows = [(start + index) % count for index in range(batch)]  # a batch longer than the rest starts over
        maps, scores = run(np.ascontiguousarray(golden.image[rows]))
        map_difference = find_largest(map_difference, maps, golden.map[rows])
        score_difference = find_largest(score_difference, scores, golden.score[rows])
    map_tolerance, score_tolerance = find_allowed(bundle, golden, precision)
    report = GoldenReport(
        vector_count=count,
        map_max_abs_difference=map_difference,
        map_tolerance=map_tolerance,
        score_max_abs_difference=score_difference,
        score_tolerance=score_tolerance,
    )
    # Written so that NaN fails.
    if not (map_difference <= report.map_tolerance and score_difference <= report.score_tolerance):
        others = "another --backend" if batch == 1 else "--batch 1, or another --backend"
        raise EngineError(
            f"{bundle.path}: the engine (batch {batch}, {precision}) disagrees with the bundle's golden vectors: maps "
            f"differ by {map_difference:.2e} ({report.map_tolerance:.0e} is allowed), scores by {score_difference:.2e} "
            f"({report.score_tolerance:.0e}). It is not used. Build with --precision fp32, {others}."
        )
    return report


def find_largest(so_far: float, actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the larger of `so_far` and the largest difference; NaN once anything is NaN."""
    return float(np.maximum(so_far, np.abs(actual - expected).max()))

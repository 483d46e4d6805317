"""Measures how much accuracy a choice of layers costs, against float32 on the same images, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.evaluate.metrics import FPR_LIMIT
from ndp_rt.quantise.areas import measure_area, rank
from ndp_rt.quantise.samples import KeptSample

AREAS = ("image_rocauc", "pixel_rocauc", "aupro")
DECISIONS = "decisions"
SURE = 2.0  # standard errors: a drop is real if it is larger than the limit by so many
GOOD_SHARE = 0.95  # of good images below the threshold where the bundle has none


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """An engine's results for samples."""

    scores: FloatArray  # [k]
    values: Sequence[FloatArray]  # of each map, at `KeptSample.places`

    def join(self, more: "Outcome") -> "Outcome":
        """Return this and the results for more samples."""
        return Outcome(scores=np.concatenate([self.scores, more.scores]), values=[*self.values, *more.values])


@dataclass(frozen=True, kw_only=True)
class Drop:
    """How much lower a figure is than float32's, with its standard error."""

    value: float
    error: float

    def exceeds(self, limit: float) -> bool:
        """Tell whether it is larger than the limit by more than chance explains."""
        return self.value - SURE * self.error > limit

    def is_sure(self, limit: float) -> bool:
        """Tell whether chance alone is smaller than the limit."""
        return SURE * self.error <= limit

    def __str__(self) -> str:
        return f"{self.value:+.4f} ± {SURE * self.error:.4f}"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Areas from 0 to 1, and differences from float32; at the network's input size."""

    areas: Mapping[str, float]  # by AREAS
    drops: Mapping[
        str, Drop
    ]  # of those; and of DECISIONS, the share of them that becomes wrong less what becomes right
    flip_count: int  # decisions that differ from float32's, at a threshold that as many good images reach
    image_count: int
    map_max_abs_difference: float  # of the compared pixels
    score_max_abs_difference: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_exceeded(found: Figures, max_drop: float) -> list[str]:
    """Return in words what is worse than allowed, chance excluded; nothing where the choice is accepted."""
    return [f"{name} drops by {drop}" for name, drop in found.drops.items() if drop.exceeds(max_drop)]


def compare_outcomes(
    found: Outcome, base: Outcome, samples: Sequence[KeptSample], threshold: float | None = None
) -> Figures:
    """Measure an outcome, and its distance from float32's on the same samples.

    Args:
        found: of the choice.
        base: of float32.
        samples: both are of.
        threshold: float32's; None: the score that GOOD_SHARE of the good samples stay below.
    """
    is_defective = np.array([sample.is_defective for sample in samples])
    areas, parts = _measure_areas(found, samples, is_defective)
    expected, base_parts = _measure_areas(base, samples, is_defective)
    drops = {
        name: Drop(value=expected[name] - areas[name], error=float(np.linalg.norm(base_parts[name] - parts[name])))
        for name in AREAS
    }
    flips, drops[DECISIONS] = _compare_decisions(found.scores, base.scores, is_defective, threshold)
    return Figures(
        areas=areas,
        drops=drops,
        flip_count=flips,
        image_count=len(samples),
        map_max_abs_difference=max(
            float(np.abs(one - other).max()) for one, other in zip(found.values, base.values, strict=True)
        ),
        score_max_abs_difference=float(np.abs(found.scores - base.scores).max()),
    )


def _measure_areas(
    outcome: Outcome, samples: Sequence[KeptSample], is_defective: BoolArray
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Return the areas by name, and what each image adds to them."""
    count = len(samples)
    images = np.arange(count)
    areas, parts = {}, {}
    scores = outcome.scores
    areas["image_rocauc"], parts["image_rocauc"] = measure_area(
        rank(scores[~is_defective], scores[is_defective]),
        np.ones(int(is_defective.sum())),
        good_images=images[~is_defective],
        defective_images=images[is_defective],
        image_count=count,
    )
    pairs = list(zip(outcome.values, samples, strict=True))
    good = [values[len(sample.weights) :] for values, sample in pairs]
    defective = [values[: len(sample.weights)] for values, sample in pairs]
    ranks = rank(np.concatenate(good), np.concatenate(defective))
    where = {
        "good_images": np.repeat(images, [len(one) for one in good]),
        "defective_images": np.repeat(images, [len(one) for one in defective]),
    }
    regions = np.concatenate([sample.weights for sample in samples])
    for name, weights, limit in (("pixel_rocauc", np.ones_like(regions), 1.0), ("aupro", regions, FPR_LIMIT)):
        areas[name], parts[name] = measure_area(ranks, weights, **where, image_count=count, limit=limit)
    return areas, parts


def _compare_decisions(
    scores: FloatArray, base: FloatArray, is_defective: BoolArray, threshold: float | None
) -> tuple[int, Drop]:
    """Return how many decisions differ, and the loss, at thresholds that as many good images reach."""
    good_scores = np.sort(base[~is_defective])
    limit = good_scores[int(GOOD_SHARE * (len(good_scores) - 1))] if threshold is None else np.float32(threshold)
    below_count = int(np.searchsorted(good_scores, limit, side="left"))
    own = np.append(np.sort(scores[~is_defective]), np.inf)
    # The place between two good scores that the limit has among float32's.
    low = own[below_count - 1] if below_count else -np.inf
    own_limit = max(np.nextafter(low, np.inf), min(own[below_count], limit))
    was, now = base >= limit, scores >= own_limit
    worse = int(((was == is_defective) & (now != is_defective)).sum())
    better = int(((was != is_defective) & (now == is_defective)).sum())
    count = len(scores)
    return worse + better, Drop(value=(worse - better) / count, error=float(np.sqrt(worse + better)) / count)

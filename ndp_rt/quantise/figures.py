"""Measures how much accuracy a choice of layers costs, against float32 on the same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.evaluate.metrics import measure_aupro, measure_pixel_rocauc, measure_rocauc
from ndp_rt.quantise.samples import Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """An engine's results for the samples."""

    maps: Sequence[FloatArray]  # smoothed, [h, w]
    threshold: float  # the engine's own, from the good calibration images

    @property
    def scores(self) -> FloatArray:
        """[k]: each map's largest value."""
        return np.array([one.max() for one in self.maps], np.float32)

    @property
    def decisions(self) -> BoolArray:
        """[k]: which images the engine calls defective."""
        found: BoolArray = self.scores >= np.float32(self.threshold)
        return found


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Areas from 0 to 1, and differences from float32; at the network's input size."""

    image_rocauc: float
    pixel_rocauc: float
    aupro: float
    flip_count: int  # decisions that differ from float32's
    image_count: int
    map_max_abs_difference: float
    score_max_abs_difference: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_exceeded(found: Figures, base: Figures, max_drop: float) -> list[str]:
    """Return in words what is worse than allowed; nothing where the choice is accepted.

    `max_drop` bounds the drop of each area and the share of decisions that change. One decision may always change: of
    sixty images it is already more than 0.01.
    """
    words = []
    for name in ("image_rocauc", "pixel_rocauc", "aupro"):
        drop = getattr(base, name) - getattr(found, name)
        if drop > max_drop:
            words.append(f"{name} drops by {drop:.4f}")
    if found.flip_count > max(1, round(max_drop * found.image_count, 6)):
        words.append(f"{found.flip_count} of {found.image_count} decisions change")
    return words


def compare_outcomes(found: Outcome, base: Outcome, samples: Samples) -> Figures:
    """Measure an outcome, and its distance from float32's."""
    positives, masks = samples.is_defective, list(samples.masks)
    return Figures(
        image_rocauc=measure_rocauc(found.scores, positives),
        pixel_rocauc=measure_pixel_rocauc(found.maps, masks),
        aupro=measure_aupro(found.maps, masks),
        flip_count=int((found.decisions != base.decisions).sum()),
        image_count=len(positives),
        map_max_abs_difference=max(
            float(np.abs(one - other).max()) for one, other in zip(found.maps, base.maps, strict=True)
        ),
        score_max_abs_difference=float(np.abs(found.scores - base.scores).max()),
    )

"""Measures the accuracy of scores and maps: ROC areas, AUPRO, and the decisions at the threshold.

Images are ranked by scikit-learn. Pixels are not: its curve keeps some 40 bytes a pixel, which is gigabytes for a
hundred photographs of a megapixel, where a sort of the good pixels alone gives the same curve. AUPRO has no home in
scikit-learn, and the libraries that carry it (anomalib, torchmetrics) bring PyTorch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.errors import InputError, MissingExtraError

FPR_LIMIT = 0.3
REMEDY = "The command needs scikit-learn, SciPy and matplotlib: pip install 'ndp-rt[evaluate]'."


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of decisions: defects found and missed, good images called defective and passed."""

    found_count: int
    missed_count: int
    false_alarm_count: int
    passed_count: int

    def to_json(self) -> dict[str, int]:
        return dict(vars(self))


def require_extras() -> None:
    """Check that the packages of the extra [evaluate] are installed, before hours of inspection depend on them.

    Raises:
        MissingExtraError: one is not installed.
    """
    missing = [name for name in ("sklearn", "scipy", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"not installed: {', '.join(missing)}. {REMEDY}")


def check_scores(scores: NDArray[Any], positives: BoolArray, what: str) -> None:
    """Raise InputError unless scores [k] are finite and positives [k] hold both classes."""
    if scores.shape != positives.shape:
        raise InputError(f"{what}: expected one label a score, got {positives.size} labels for {scores.size} scores.")
    if not np.isfinite(scores).all():
        raise InputError(f"{what}: expected finite scores, got NaN or infinity. Look at the model's maps.")
    _check_classes(what, int(np.sum(~positives)), int(np.sum(positives)))


def _check_classes(what: str, good_count: int, bad_count: int) -> None:
    if not good_count or not bad_count:
        raise InputError(f"{what}: expected good and defective ones, got {good_count} good and {bad_count} defective.")


def integrate_curve(fpr: NDArray[Any], rate: NDArray[Any], limit: float) -> float:
    """Return the area under rate over fpr from 0 to limit, divided by limit: 0 to 1.

    Args:
        fpr: float64 [k], never falling, from 0 to 1.
        rate: float64 [k], 0 to 1; straight lines join the points.
        limit: in (0, 1]; the curve is cut there, between two points where need be.
    """
    end = int(np.searchsorted(fpr, limit, side="right"))
    x = np.append(fpr[:end], limit)
    y = np.append(rate[:end], np.interp(limit, fpr[max(end - 1, 0) : end + 1], rate[max(end - 1, 0) : end + 1]))
    area = np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) / 2
    return float(min(max(area / limit, 0.0), 1.0))  # rounding alone could leave [0, 1]


def measure_rocauc(scores: NDArray[Any], positives: BoolArray) -> float:
    """Return the area under the ROC curve of scores [k] against positives [k], ties counted as half; 0 to 1.

    Raises:
        InputError: a score is not finite, or one class is missing.
        MissingExtraError: scikit-learn is not installed.
    """
    check_scores(scores, positives, "ROCAUC")
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError as error:
        raise MissingExtraError(f"{error}. {REMEDY}") from error
    return float(roc_auc_score(positives, scores))


def trace_curve(
    good: FloatArray, bad: FloatArray, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of the weighted ROC curve: false positive rates and weighted true positive rates, rising.

    A score that only good pixels have is no corner: it moves the curve to the right. So two points for each distinct
    score in `bad`, before and after it, give the exact curve: between them its good and bad pixels tie.

    Args:
        good: float32 [g], g > 0; sorted in place.
        bad: float32 [b], b > 0.
        weights: float64 [b], above 0.
    """
    good.sort()
    values, groups = np.unique(bad, return_inverse=True)
    gains = np.bincount(groups.ravel(), weights)[::-1] / np.sum(weights)
    values = values[::-1]
    before = 1 - np.searchsorted(good, values, side="right") / good.size
    after = 1 - np.searchsorted(good, values, side="left") / good.size
    reached = np.minimum(np.cumsum(gains), 1.0)
    fpr = np.concatenate([[0.0], np.stack([before, after], axis=1).ravel(), [1.0]])
    rate = np.concatenate([[0.0], np.stack([np.append(0.0, reached[:-1]), reached], axis=1).ravel(), [1.0]])
    return fpr, rate


def gather(
    maps: Sequence[FloatArray], masks: Sequence[BoolArray], what: str, ignored: BoolArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the good and the defective pixels of all images, new float32 arrays [g] and [b], in the images' order.

    Those that are `ignored`, [h, w] like every map, are left out.

    Raises:
        InputError: there is no map, sizes differ, a value is not finite, or one class has no pixel.
    """
    if len(maps) != len(masks) or not maps:
        raise InputError(f"{what}: expected a mask for each map, at least one, got {len(maps)} and {len(masks)} masks.")
    for pixels, mask in zip(maps, masks, strict=True):
        if pixels.shape != mask.shape:
            raise InputError(f"{what}: expected a mask {list(pixels.shape)} like its map, got {list(mask.shape)}.")
        if not np.isfinite(pixels).all():
            raise InputError(f"{what}: expected finite maps, got NaN or infinity.")
    good = np.concatenate([p[_leave_out(~mask, ignored)] for p, mask in zip(maps, masks, strict=True)])
    bad = np.concatenate([p[_leave_out(mask, ignored)] for p, mask in zip(maps, masks, strict=True)])
    _check_classes(what, good.size, bad.size)
    return good, bad


def _leave_out(mask: BoolArray, ignored: BoolArray | None) -> BoolArray:
    return mask if ignored is None else mask & ~ignored


def measure_pixel_rocauc(
    maps: Sequence[FloatArray], masks: Sequence[BoolArray], ignored: BoolArray | None = None
) -> float:
    """Return the ROC area over all pixels of all images together; arguments and errors as `measure_aupro`."""
    good, bad = gather(maps, masks, "pixel ROCAUC", ignored)
    return integrate_curve(*trace_curve(good, bad, np.ones(bad.size)), 1.0)


def weigh_regions(mask: BoolArray) -> NDArray[np.float64]:
    """Return 1 / area of its region for each True pixel of mask [h, w], in row order.

    Pixels that touch at a side or a corner belong to one region, as in MVTec AD's own evaluation.
    """
    try:
        from scipy.ndimage import label
    except ImportError as error:
        raise MissingExtraError(f"{error}. {REMEDY}") from error
    regions = label(mask, structure=np.ones((3, 3), dtype=np.int8))[0][mask]
    return np.asarray(1.0 / np.bincount(regions)[regions], dtype=np.float64)


def measure_aupro(
    maps: Sequence[FloatArray],
    masks: Sequence[BoolArray],
    fpr_limit: float = FPR_LIMIT,
    *,
    ignored: BoolArray | None = None,
) -> float:
    """Return the area under the per-region overlap up to `fpr_limit`, divided by it: 0 to 1.

    The overlap at a threshold is the mean over all regions of the share of the region's pixels that reach it. With
    every region's pixels weighing 1 / area, that is the true positive rate of a weighted ROC curve, so every distinct
    value of the maps counts and nothing is sampled. A map that says nothing has `fpr_limit` / 2.

    Args:
        maps: float32 [h, w] each, sizes may differ; higher means more likely a defect.
        masks: bool [h, w] each, the size of its map; True on a defect. Those of good images are all False.
        fpr_limit: in (0, 1]; the false positive rate is over the good pixels of all images.
        ignored: bool [h, w], pixels of every image that count for nothing; None: all count.

    Raises:
        InputError: sizes differ, a map is not finite, or the masks hold only good or only defective pixels.
        MissingExtraError: SciPy is not installed.
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit: expected above 0, up to 1, got {fpr_limit}.")
    good, bad = gather(maps, masks, "AUPRO", ignored)
    weights = np.concatenate([weigh_regions(_leave_out(mask, ignored)) for mask in masks])
    return integrate_curve(*trace_curve(good, bad, weights), fpr_limit)


def count_confusion(flagged: BoolArray, positives: BoolArray) -> Confusion:
    """Count the decisions flagged [k] (True: called a defect) against positives [k] (True: is one)."""
    return Confusion(
        found_count=int(np.sum(flagged & positives)),
        missed_count=int(np.sum(~flagged & positives)),
        false_alarm_count=int(np.sum(flagged & ~positives)),
        passed_count=int(np.sum(~flagged & ~positives)),
    )

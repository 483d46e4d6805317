"""Thresholds from good images alone, and the false-alarm rate that their number can promise.

Where a threshold lies is either promised or predicted (`ndp_rt.decide.prediction`). The promise is nonparametric and
exact: nothing is assumed of the scores' distribution, only that the groups of images are independent
draws of what the line will show (an image by itself is a group of one). A group counts with its highest score. If the
threshold lies just above the (k + 1)-th highest of n groups, then at confidence 1 - alpha the rate of groups with a
false alarm is at most p, where P(Binomial(n, p) <= k) = alpha (Clopper and Pearson 1934); the rate of images that are
false alarms is no higher. With k = 0 that asks for 29, 59, 149, 299 or 598 groups for 10, 5, 2, 1 or 0.5 % at 95 %.

A predicted threshold may have a few images of every large group above it. Its bound is that of one image of each group,
the first. There k is read from the images that the threshold was predicted from, so this bound is an estimate.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.prediction import predict_limit
from ndp_rt.errors import DataError, InputError
from ndp_rt.program.manifest import ThresholdSpec

CONFIDENCE = 0.95
EXPECTED_RATE = 0.05  # of good images, varied, that reach a threshold which no rate was asked for
FEW_GROUPS = 29  # fewer cannot promise even 10 % at CONFIDENCE


def binomial_tail(count: int, rate: float, exceeding_count: int) -> float:
    """Return P(Binomial(count, rate) <= exceeding_count)."""
    if exceeding_count >= count or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    log_hit, log_miss = math.log(rate), math.log1p(-rate)
    log_factorial = math.lgamma(count + 1)
    return math.fsum(
        math.exp(log_factorial - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_hit + (count - k) * log_miss)
        for k in range(exceeding_count + 1)
    )


def false_alarm_bound(good_image_count: int, exceeding_count: int = 0, confidence: float = CONFIDENCE) -> float:
    """Return the highest false-alarm rate that the calibration leaves possible at this confidence, 0 to 1.

    Args:
        good_image_count: independent good images, or groups of them, that were scored.
        exceeding_count: how many of them score at or above the threshold.
        confidence: 0 to 1, both excluded.
    """
    if exceeding_count >= good_image_count:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):  # the tail falls with the rate; 60 halvings pass float64's resolution
        middle = (low + high) / 2
        if binomial_tail(good_image_count, middle, exceeding_count) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high


def images_needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """Return how many good images promise a false-alarm rate of at most `rate` when none may exceed the threshold."""
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-rate))


def allowed_exceeding_count(good_image_count: int, rate: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many good images may score at or above the threshold and still promise `rate`; None: not even 0."""
    allowed = None
    for k in range(good_image_count):
        if binomial_tail(good_image_count, rate, k) > 1.0 - confidence:
            break
        allowed = k
    return allowed


def check_rate(rate: float | None) -> None:
    """Raise InputError unless a wanted rate of false alarms lies between 0 and 1, or is None."""
    if rate is not None and not 0.0 < rate < 1.0:
        raise InputError(f"false-alarm rate: expected above 0 and below 1, got {rate}. One in a hundred is 0.01.")


def threshold_from_good_images(
    values: FloatArray, rate: float | None, groups: Sequence[Hashable] | None, *, has_own_score: bool
) -> ThresholdSpec:
    """Return the threshold for scores, with one for the map where the model gives its scores itself.

    Args:
        values: float32 [images, variations, 2], the score and the map's largest value of each.
        rate: as for `threshold_from_good_scores`.
        groups: likewise.
        has_own_score: whether the score is another quantity than the map.
    """
    spec = threshold_from_good_scores(values[..., 0], rate, groups=groups)
    if not has_own_score:
        return spec
    return replace(spec, map_value=threshold_from_good_scores(values[..., 1], rate, groups=groups).value)


def threshold_from_good_scores(
    scores: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.floating]],
    rate: float | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
) -> ThresholdSpec:
    """Return the threshold that good images' scores support.

    Without `rate` it is the score that a share EXPECTED_RATE of good images of other groups is predicted to reach. With
    `rate` it is as low as the promise allows; where n is too small for that, it lies above all scores, and where the
    prediction for that rate is, and the note says so. Either way the bound is the one that the scores themselves prove.

    Args:
        scores: scores of good images that the model was not trained on, any order: [n], or [n, v], an image as it is
            and varied, of which the highest counts.
        rate: wanted highest rate of false alarms, 0 to 1, or None.
        groups: the group of each image; images of different groups are independent. None: each image is a group.
        confidence: of the promise, 0 to 1.

    Raises:
        DataError: no scores.
        InputError: a score that is not finite, or a rate or confidence outside 0 to 1.
    """
    values = np.asarray(scores, dtype=np.float32)
    check_rate(rate)
    _check_scores(values, confidence)
    image_peaks = values.reshape(len(values), -1).max(axis=1)
    labels = range(len(values)) if groups is None else groups
    peaks = _find_group_peaks(image_peaks, labels)
    count = len(peaks)
    allowed = None if rate is None else allowed_exceeding_count(count, rate, confidence)
    if allowed is None:
        limit = _predict(image_peaks, labels, EXPECTED_RATE if rate is None else rate)
        limit = limit if rate is None else max(limit, float(peaks[-1]))
    else:
        limit = float(peaks[count - 1 - allowed])
    # Just above it: scores are float32, and the decision is score >= threshold.
    value = np.nextafter(np.float32(limit), np.float32(np.inf))
    judged = _take_first(image_peaks, labels) if allowed is None else peaks
    exceeding = int((judged >= value).sum())
    bound = false_alarm_bound(count, exceeding, confidence)
    return ThresholdSpec(
        value=float(value),
        source="calibrated",
        good_image_count=len(values),
        group_count=count,
        false_alarm_rate_bound=bound,
        confidence=confidence,
        note=_describe_aim(rate, allowed, int((image_peaks >= value).sum()), len(values))
        + _describe(exceeding, count, len(values), values.size > len(values), bound, confidence)
        + _describe_lack(count, len(values), rate, allowed, confidence),
    )


def _check_scores(values: FloatArray, confidence: float) -> None:
    """Raise what `threshold_from_good_scores` says."""
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence: expected above 0 and below 1, such as 0.95, got {confidence}.")
    if values.size == 0:
        raise DataError(
            "calibration: expected one good image or more, got none. To promise at most 1 % of false alarms, give "
            f"{images_needed(0.01)}."
        )
    if not np.isfinite(values).all():
        raise InputError("calibration: expected finite scores, got NaN or infinity. Check the model first.")


def _predict(scores: FloatArray, groups: Sequence[Hashable], rate: float) -> float:
    """Return the predicted limit; of a single score itself."""
    return predict_limit(scores, groups, rate) if len(scores) > 1 else float(scores[0])


def _take_first(scores: FloatArray, groups: Sequence[Hashable]) -> FloatArray:
    """Return the score of each group's first image: one image of each group is independent of the others."""
    first: dict[Hashable, np.float32] = {}
    for score, group in zip(scores, groups, strict=True):
        first.setdefault(group, score)
    return np.array(list(first.values()), np.float32)


def _find_group_peaks(scores: FloatArray, groups: Sequence[Hashable]) -> FloatArray:
    """Return the highest score of each group, sorted."""
    peaks: dict[Hashable, np.float32] = {}
    for score, group in zip(scores, groups, strict=True):
        peaks[group] = max(score, peaks.get(group, score))
    return np.sort(np.array(list(peaks.values()), np.float32))


def _describe_aim(rate: float | None, allowed: int | None, reaching_count: int, image_count: int) -> str:
    """Return in words what the prediction says, and what it came to; empty where there is a promise instead."""
    if allowed is not None:
        return ""
    aim = EXPECTED_RATE if rate is None else rate
    return f"{aim:.2%} of good images predicted at or above it, {reaching_count} of these {image_count} are; "


def _describe(
    exceeding: int, group_count: int, image_count: int, is_varied: bool, bound: float, confidence: float
) -> str:
    """Return in words what the scores show, and under which conditions."""
    if group_count == image_count:
        what, whole = "images", f"{group_count} good images"
    else:
        what, whole = "groups", f"{group_count} independent group(s) of good images ({image_count} images)"
    varied = ", light, focus and position varied," if is_varied else ""
    return (
        f"{exceeding} of {whole}{varied} at or above it: at most {bound:.2%} false alarms at {confidence:.0%} "
        f"confidence, if the {what} are independent and the line stays as it was"
    )


def _describe_lack(count: int, image_count: int, rate: float | None, allowed: int | None, confidence: float) -> str:
    """Return in words what cannot be promised, and what to do; empty where nothing is amiss."""
    what = "images" if count == image_count else "group(s)"
    if rate is not None and allowed is None:
        text = (
            f"; the {rate:.2%} asked for cannot be promised from {count} {what}, "
            f"it takes {images_needed(rate, confidence)}"
        )
    elif count < FEW_GROUPS:
        text = f"; {count} {what} promise little, {images_needed(0.01, confidence)} would promise 1 %"
    else:
        return ""
    return f"{text}. Run ndp-rt set-threshold --calibrate with good pieces of other days."

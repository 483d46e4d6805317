"""Thresholds from good images alone, with the false-alarm rate that their number can promise.

Nonparametric and exact: nothing is assumed of the scores' distribution, only that the images are independent draws of
what the line will show. If the threshold lies just above the (k + 1)-th highest of n good scores, then at confidence
1 - alpha the rate of false alarms is at most p, where P(Binomial(n, p) <= k) = alpha (Clopper and Pearson 1934). With
k = 0 that asks for 29, 59, 149, 299 or 598 images for 10, 5, 2, 1 or 0.5 % at 95 %.
"""

import math
from collections.abc import Sequence

import numpy as np

from ndp_rt.errors import DataError, InputError
from ndp_rt.program.manifest import ThresholdSpec

CONFIDENCE = 0.95
FEW_IMAGES = 29  # fewer cannot promise even 10 % at CONFIDENCE


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
        good_image_count: independent good images that were scored.
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


def threshold_from_good_scores(
    scores: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.floating]],
    rate: float | None = None,
    *,
    confidence: float = CONFIDENCE,
) -> ThresholdSpec:
    """Return the threshold that good images' scores support.

    Without `rate` it lies just above the highest score, the strongest promise n images can make. With `rate` it is as
    low as the promise allows; where n is too small for that rate the highest score is used and the note says so.

    Args:
        scores: scores of independent good images that the model was not trained on, any order.
        rate: wanted highest rate of false alarms, 0 to 1, or None.
        confidence: of the promise, 0 to 1.

    Raises:
        DataError: no scores.
        InputError: a score that is not finite, or a rate or confidence outside 0 to 1.
    """
    values = np.sort(np.asarray(scores, dtype=np.float32).ravel())
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence: expected above 0 and below 1, such as 0.95, got {confidence}.")
    check_rate(rate)
    if values.size == 0:
        raise DataError(
            "calibration: expected one good image or more, got none. To promise at most 1 % of false alarms, give "
            f"{images_needed(0.01)}."
        )
    if not np.isfinite(values).all():
        raise InputError("calibration: expected finite scores, got NaN or infinity. Check the model first.")
    count = int(values.size)
    allowed = 0 if rate is None else allowed_exceeding_count(count, rate, confidence)
    limit = values[count - 1 - (allowed or 0)]
    value = np.nextafter(limit, np.float32(np.inf))  # scores are float32: the decision is score >= threshold
    exceeding = int((values >= value).sum())
    bound = false_alarm_bound(count, exceeding, confidence)
    return ThresholdSpec(
        value=float(value),
        source="calibrated",
        good_image_count=count,
        false_alarm_rate_bound=bound,
        confidence=confidence,
        note=_describe(count, exceeding, bound, rate, allowed, confidence),
    )


def _describe(
    count: int, exceeding: int, bound: float, rate: float | None, allowed: int | None, confidence: float
) -> str:
    """Return in words what the threshold promises, and under which conditions."""
    text = (
        f"{exceeding} of {count} good images at or above it: at most {bound:.2%} false alarms at {confidence:.0%} "
        "confidence, if the images are independent and the line stays as it was"
    )
    if rate is not None and allowed is None:
        text += (
            f"; the {rate:.2%} asked for cannot be promised from {count} images, "
            f"it takes {images_needed(rate, confidence)}"
        )
    elif count < FEW_IMAGES:
        text += f"; {count} images promise little, {images_needed(0.01, confidence)} would promise 1 %"
    return text

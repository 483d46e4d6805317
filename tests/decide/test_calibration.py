"""The promise of a threshold that was found from good images alone."""

import dataclasses

import numpy as np
import pytest

from ndp_rt.decide.calibration import (
    EXPECTED_RATE,
    allowed_exceeding_count,
    binomial_tail,
    false_alarm_bound,
    images_needed,
    threshold_from_good_scores,
)
from ndp_rt.decide.prediction import predict_limit
from ndp_rt.errors import DataError, InputError


@pytest.mark.parametrize(("rate", "count"), [(0.1, 29), (0.05, 59), (0.02, 149), (0.01, 299), (0.005, 598)])
def test_needs_the_known_number_of_images(rate: float, count: int) -> None:
    assert images_needed(rate) == count
    assert allowed_exceeding_count(count, rate) == 0
    assert allowed_exceeding_count(count - 1, rate) is None
    assert false_alarm_bound(count) <= rate < false_alarm_bound(count - 1)


def test_tail_equals_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy (extra [evaluate]) is missing")
    for count, rate, k in [(10, 0.3, 2), (1000, 0.004, 7), (59, 0.05, 0), (5, 0.5, 5)]:
        assert binomial_tail(count, rate, k) == pytest.approx(stats.binom.cdf(k, count, rate), rel=1e-9)


def test_lies_just_above_the_highest_score_where_that_is_what_the_rate_takes() -> None:
    scores = np.linspace(0.1, 0.4, 59, dtype=np.float32)
    spec = threshold_from_good_scores(scores, 0.05)
    assert spec.value == float(np.nextafter(scores.max(), np.float32(1)))
    assert spec.good_image_count == spec.group_count == 59
    assert spec.false_alarm_rate_bound == pytest.approx(1 - 0.05 ** (1 / 59))
    assert "predicted" not in spec.note


def test_is_the_predicted_limit_where_no_rate_is_asked_for(rng: np.random.Generator) -> None:
    scores = rng.uniform(0.1, 0.4, 12).astype(np.float32)
    groups = ["a", "b", "c"] * 4
    spec = threshold_from_good_scores(scores, groups=groups)
    assert spec.value == pytest.approx(predict_limit(scores, groups, EXPECTED_RATE))
    assert spec.note.startswith("5.00% of good images predicted at or above it, 0 of these 12 are; 0 of 3 independent")


def test_the_bound_of_a_predicted_threshold_is_that_of_the_first_image_of_each_group(rng: np.random.Generator) -> None:
    lines = rng.normal(size=(4, 100)).astype(np.float32)
    lines[:, 0] = 0.0
    spec = threshold_from_good_scores(lines.ravel(), groups=np.repeat(range(4), 100).tolist())
    assert (lines >= spec.value).any(axis=1).all()  # so many images: some of each group
    assert spec.false_alarm_rate_bound == pytest.approx(false_alarm_bound(4, 0))
    lines[0, 0] = 9.0
    spec = threshold_from_good_scores(lines.ravel(), groups=np.repeat(range(4), 100).tolist())
    assert spec.false_alarm_rate_bound == pytest.approx(false_alarm_bound(4, 1))


def test_a_group_counts_once_with_its_highest_score() -> None:
    scores = np.arange(590, dtype=np.float32)
    groups = np.arange(590) // 10
    spec = threshold_from_good_scores(scores, 0.1, groups=groups.tolist())
    exceeding = allowed_exceeding_count(59, 0.1)
    assert exceeding == 1
    assert spec.value == float(np.nextafter(np.float32(579), np.float32(np.inf)))  # the second highest group's
    assert (spec.good_image_count, spec.group_count) == (590, 59)
    assert spec.false_alarm_rate_bound == pytest.approx(false_alarm_bound(59, exceeding))
    assert "1 of 59 independent group(s) of good images (590 images) at or above it" in spec.note


def test_promise_holds_for_images_of_other_groups_in_simulation(rng: np.random.Generator) -> None:
    broken = 0
    for _ in range(400):
        lines = rng.normal(size=(400, 1)) + 0.3 * rng.normal(size=(400, 8))
        groups = np.repeat(np.arange(40), 8).tolist()
        spec = threshold_from_good_scores(lines[:40].astype(np.float32).ravel(), 0.1, groups=groups)
        broken += (lines[40:] >= spec.value).mean() > 0.1
    assert broken / 400 < 0.09  # 5 % at most expected


def test_an_image_counts_with_its_worst_variation() -> None:
    plain = np.linspace(0.1, 0.4, 59, dtype=np.float32)
    varied = np.stack([plain, plain[::-1] + 0.5, plain - 0.05], axis=1)
    worst = threshold_from_good_scores(plain + np.float32(0.5), 0.05)
    note = worst.note.replace("good images at", "good images, light, focus and position varied, at")
    assert threshold_from_good_scores(varied, 0.05) == dataclasses.replace(worst, note=note)


def test_few_groups_are_said_with_what_to_do() -> None:
    spec = threshold_from_good_scores([0.1, 0.2, 0.3, 0.4], groups=["a", "a", "a", "a"])
    assert spec.false_alarm_rate_bound == pytest.approx(0.95)
    assert "1 group(s) promise little, 299 would promise 1 %. Run ndp-rt set-threshold --calibrate" in spec.note


def test_a_single_image_gives_a_threshold_just_above_it() -> None:
    assert threshold_from_good_scores([0.25]).value == float(np.nextafter(np.float32(0.25), np.float32(1)))


def test_lets_as_many_images_exceed_as_the_rate_allows() -> None:
    scores = np.arange(1000, dtype=np.float32)
    spec = threshold_from_good_scores(scores, 0.05)
    exceeding = int((scores >= spec.value).sum())
    assert exceeding == allowed_exceeding_count(1000, 0.05) == 38
    assert spec.false_alarm_rate_bound is not None and spec.false_alarm_rate_bound <= 0.05


def test_says_what_it_cannot_promise() -> None:
    spec = threshold_from_good_scores([0.1, 0.3, 0.2], 0.01)
    assert spec.value > 0.3 - 1e-6
    assert "cannot be promised" in spec.note and "299" in spec.note
    assert spec.false_alarm_rate_bound is not None and spec.false_alarm_rate_bound > 0.6


def test_promise_holds_in_simulation(rng: np.random.Generator) -> None:
    broken = 0
    for _ in range(400):
        spec = threshold_from_good_scores(rng.random(59, dtype=np.float32), 0.05)
        broken += 1.0 - spec.value > 0.05  # uniform scores: the true false-alarm rate is 1 - threshold
    assert broken / 400 < 0.09  # 5 % expected; 0.09 is 3.7 standard deviations above


def test_ties_only_lower_the_number_that_exceed() -> None:
    spec = threshold_from_good_scores([0.5] * 100, 0.1)
    assert spec.value > 0.5
    assert spec.false_alarm_rate_bound == pytest.approx(false_alarm_bound(100, 0))


@pytest.mark.parametrize("scores", [[float("nan")], [0.1, float("inf")]])
def test_rejects_scores_that_are_not_finite(scores: list[float]) -> None:
    with pytest.raises(InputError, match="finite"):
        threshold_from_good_scores(scores)


def test_rejects_no_scores_and_rates_outside_zero_to_one() -> None:
    with pytest.raises(DataError, match="got none"):
        threshold_from_good_scores([])
    with pytest.raises(InputError, match="false-alarm rate"):
        threshold_from_good_scores([0.1], 1.5)
    with pytest.raises(InputError, match="confidence: expected .* got 0"):
        threshold_from_good_scores([0.1], confidence=0.0)

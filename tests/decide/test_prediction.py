"""The score that good images of other lots are predicted to reach."""

import math

import numpy as np
import pytest

from ndp_rt.decide.prediction import predict_limit


def to_score(line: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-line)), np.float32)


@pytest.mark.parametrize("rate", [0.2, 0.05])
@pytest.mark.parametrize(("group_count", "least"), [(1, 0.1), (2, 0.4), (4, 0.7), (30, 0.8)])
def test_as_many_images_of_other_groups_reach_it_as_were_asked_for(
    rng: np.random.Generator, rate: float, group_count: int, least: float
) -> None:
    """Where groups spread as images within a group do, the prediction holds on average, with few groups amply."""
    reached = []
    for _ in range(400):
        line = rng.normal(size=(group_count + 40, 1)) + rng.normal(size=(group_count + 40, 8)) - 2
        scores = to_score(line)
        groups = np.repeat(np.arange(group_count), 8)
        limit = predict_limit(scores[:group_count].ravel(), groups.tolist(), rate)
        reached.append((scores[group_count:] >= limit).mean())
    assert least * rate < np.mean(reached) < 1.2 * rate


@pytest.mark.parametrize("group_count", [1, 2])
def test_it_is_not_far_too_low_where_groups_differ_more_than_their_images(
    rng: np.random.Generator, group_count: int
) -> None:
    """Sheets and lots do: of leather and a fabric twice as many good images reached it as were asked for."""
    reached = []
    for _ in range(400):
        line = 1.5 * rng.normal(size=(group_count + 40, 1)) + rng.normal(size=(group_count + 40, 8)) - 2
        scores = to_score(line)
        groups = np.repeat(np.arange(group_count), 8)
        limit = predict_limit(scores[:group_count].ravel(), groups.tolist(), 0.05)
        reached.append((scores[group_count:] >= limit).mean())
    assert np.mean(reached) < 0.085


@pytest.mark.parametrize("count", [3, 8, 60])
def test_single_images_are_predicted_like_a_normal_sample(rng: np.random.Generator, count: int) -> None:
    reached = []
    for _ in range(2000):
        line = rng.normal(size=count + 1)
        limit = predict_limit(to_score(line[:-1]), range(count), 0.1)
        reached.append(float(to_score(line)[-1]) >= limit)
    assert 0.08 < np.mean(reached) < 0.125  # 0.1 to three standard deviations, and the series' error with few images


def test_groups_raise_it(rng: np.random.Generator) -> None:
    line = np.repeat(rng.normal(size=4), 10) + 0.1 * rng.normal(size=40)
    scores = to_score(line)
    alone = predict_limit(scores, range(40), 0.05)
    assert predict_limit(scores, np.repeat(range(4), 10).tolist(), 0.05) > alone


def test_takes_scores_of_any_scale(rng: np.random.Generator) -> None:
    scores = rng.normal(100.0, 5.0, 50).astype(np.float32)
    limit = predict_limit(scores, range(50), 0.05)
    assert limit == pytest.approx(scores.mean() + 1.677 * scores.std(ddof=1) * math.sqrt(1.02), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_scores_that_are_all_alike_give_that_score(value: float) -> None:
    limit = predict_limit(np.full(5, value, np.float32), ["a", "a", "b", "b", "c"], 0.05)
    assert limit == pytest.approx(value, abs=1e-5)


def test_one_bad_image_among_the_good_hardly_lifts_the_limit(rng: np.random.Generator) -> None:
    line = rng.normal(size=30)
    clean = predict_limit(to_score(line), range(30), 0.05)
    line[7] = 12.0  # a crack that was overlooked
    soiled = predict_limit(to_score(line), range(30), 0.05)
    assert soiled - clean < 0.05


def test_scores_that_are_mostly_equal_are_taken_as_they_are() -> None:
    scores = np.array([0.2] * 9 + [0.6], np.float32)
    assert predict_limit(scores, range(10), 0.05) > 0.3

"""The area opening: against its definition, level by level."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from ndp_rt.decide import opening
from ndp_rt.decide.counting import Counting
from ndp_rt.decide.regions import list_defects
from ndp_rt.decide.score import score_counted
from ndp_rt.kernels.top_k_mean.definition import top_k_mean
from ndp_rt.program.program import DecisionRules

MAX = DecisionRules()


def open_map(smoothed: np.ndarray, pixels: np.ndarray, least_area: int) -> np.ndarray:
    """Return the opened map by its definition: the highest level at which a pixel's region is large enough."""
    opened = np.full(smoothed.shape, -np.inf, np.float32)
    for level in np.unique(smoothed[pixels]):
        labels, _ = label((smoothed >= level) & pixels, np.ones((3, 3)))
        large = np.bincount(labels.ravel()) >= least_area
        large[0] = False
        opened[large[labels]] = level
    return opened


def draw(seed: int, h: int, w: int, *, is_stepped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a map, of few values or of many, negative ones among them, and which of its pixels count."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 5, (h, w)) / 7 if is_stepped else rng.normal(size=(h, w))
    return values.astype(np.float32), rng.random((h, w)) < 0.8


cases = given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.booleans())


@settings(max_examples=150)
@cases
def test_score_is_the_highest_value_of_the_opened_map(seed: int, h: int, w: int, area: int, is_stepped: bool) -> None:
    smoothed, pixels = draw(seed, h, w, is_stepped=is_stepped)
    opened = open_map(smoothed, pixels, area)
    if np.isfinite(opened).any():
        assert score_counted(smoothed, MAX, Counting(pixels=pixels, least_area=area)) == opened.max()


@settings(max_examples=150)
@cases
def test_lists_the_largest_values_of_the_opened_map(seed: int, h: int, w: int, area: int, is_stepped: bool) -> None:
    smoothed, pixels = draw(seed, h, w, is_stepped=is_stepped)
    opened = open_map(smoothed, pixels, area)
    values = np.sort(opened[np.isfinite(opened)])[::-1]
    for k in (1, 3, 20) if values.size else ():
        assert np.array_equal(opening.list_opened(smoothed, pixels, area, k), values[:k])
        rules = DecisionRules(score="top_k_mean", k=k)
        found = score_counted(smoothed, rules, Counting(pixels=pixels, least_area=area))
        expected = top_k_mean(values[np.newaxis], min(k, values.size))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=150)
@cases
def test_a_score_reaches_a_threshold_exactly_where_a_defect_is_listed(
    seed: int, h: int, w: int, area: int, is_stepped: bool
) -> None:
    smoothed, pixels = draw(seed, h, w, is_stepped=is_stepped)
    counting = Counting(pixels=pixels, least_area=area)
    if not counting.holds_any((h, w)):
        return
    score = score_counted(smoothed, MAX, counting)
    for threshold in (score, float(np.nextafter(np.float32(score), np.float32(9))), score - 0.1, score + 0.1):
        defects = list_defects(smoothed, threshold, h, w, pixels=pixels, least_area=area)
        assert bool(defects) == (score >= threshold)
        assert all(defect.area_px >= area for defect in defects)


def test_a_map_in_strips_has_the_score_of_the_whole(rng: np.random.Generator, monkeypatch: object) -> None:
    smoothed, pixels = rng.random((70, 50), np.float32), rng.random((70, 50)) < 0.9
    whole = opening.find_level(smoothed, pixels, 9), opening.find_level(smoothed, None, 9)
    monkeypatch.setattr(opening, "STRIP_PX", 300)  # type: ignore[attr-defined]
    assert (opening.find_level(smoothed, pixels, 9), opening.find_level(smoothed, None, 9)) == whole

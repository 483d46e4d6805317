"""Metrics on cases whose value can be worked out by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_rt.errors import InputError
from ndp_rt.evaluate.metrics import (
    Confusion,
    count_confusion,
    integrate_curve,
    measure_aupro,
    measure_pixel_rocauc,
    measure_rocauc,
    weigh_regions,
)
from tests.tolerances import assert_close


def make_case(rng: np.random.Generator, *sizes: tuple[int, int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return random maps, and masks with a rectangle each."""
    maps = [rng.random(size, dtype=np.float32) for size in sizes]
    masks = [np.zeros(size, dtype=bool) for size in sizes]
    for mask in masks:
        mask[: max(1, mask.shape[0] // 3), : max(1, mask.shape[1] // 4)] = True
    return maps, masks


def measure_aupro_slowly(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    """AUPRO by its definition: one threshold after the other, one region after the other."""
    from scipy.ndimage import label

    regions = []
    for pixels, mask in zip(maps, masks, strict=True):
        marked, count = label(mask, structure=np.ones((3, 3)))
        regions += [pixels[marked == index] for index in range(1, count + 1)]
    good = np.concatenate([pixels[~mask] for pixels, mask in zip(maps, masks, strict=True)])
    x, y = [0.0], [0.0]
    for threshold in sorted({float(value) for pixels in maps for value in pixels.ravel()}, reverse=True):
        x.append(float(np.mean(good >= threshold)))
        y.append(float(np.mean([np.mean(region >= threshold) for region in regions])))
    inside = [(a, b) for a, b in zip(x, y, strict=True) if a < limit]
    after = next((a, b) for a, b in zip(x, y, strict=True) if a >= limit)
    last = inside[-1]
    inside.append((limit, last[1] + (after[1] - last[1]) * (limit - last[0]) / (after[0] - last[0])))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(inside)) / limit


def test_a_perfect_map_has_aupro_one() -> None:
    mask = np.zeros((12, 7), dtype=bool)
    mask[2:5, 1:3] = mask[8:10, 5] = True
    assert_close(measure_aupro([mask.astype(np.float32)], [mask]), 1.0, "metric", "float64")


def test_an_inverted_map_has_aupro_zero() -> None:
    mask = np.zeros((12, 7), dtype=bool)
    mask[2:5, 1:3] = True
    assert measure_aupro([1 - mask.astype(np.float32)], [mask]) == 0.0


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_a_constant_map_has_half_the_limit(limit: float) -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[4, 4:7] = True
    assert_close(measure_aupro([np.full((9, 9), 0.7, np.float32)], [mask], limit), limit / 2, "metric", "float64")


def test_a_random_map_has_about_half_the_limit(rng: np.random.Generator) -> None:
    maps, masks = make_case(rng, (200, 300), (300, 200))
    assert abs(measure_aupro(maps, masks) - 0.15) < 0.01


def test_half_a_region_found_before_any_false_alarm_is_one_half() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0, :4] = True
    scores = np.full((10, 10), 0.5, np.float32)
    scores[0, :2], scores[0, 2:4] = 0.9, 0.1
    # the 96 good pixels share one value: the curve runs from (0, 0.5) to (1, 0.5)
    assert_close(measure_aupro([scores], [mask]), 0.5, "metric", "float64")


def test_every_region_weighs_the_same_whatever_its_area() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[0, 0] = True
    mask[5:15, 5:15] = True
    scores = np.full((20, 20), 0.5, np.float32)
    scores[0, 0], scores[5:15, 5:15] = 0.9, 0.1
    assert_close(measure_aupro([scores], [mask]), 0.5, "metric", "float64")
    assert_close(measure_pixel_rocauc([scores], [mask]), 1 / 101, "metric", "float64")


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    np.testing.assert_array_equal(weigh_regions(mask), [0.5, 0.5, 1.0])


def test_regions_of_two_images_stay_apart() -> None:
    mask = np.ones((1, 4), dtype=bool)
    mask[0, 3] = False
    found, missed = np.array([[0.9, 0.9, 0.9, 0.5]], np.float32), np.array([[0.1, 0.1, 0.1, 0.5]], np.float32)
    assert_close(measure_aupro([found, missed], [mask, mask]), 0.5, "metric", "float64")


def test_the_curve_is_cut_between_two_points() -> None:
    # good pixels at 0.8 and 0.2, the region's at 0.9 and 0.5: points (0, .5), (.5, .5), (.5, 1), (1, 1)
    scores = np.array([[0.9, 0.8, 0.5, 0.2]], np.float32)
    mask = np.array([[True, False, True, False]])
    assert_close(measure_aupro([scores], [mask], 0.75), (0.5 * 0.5 + 0.25 * 1.0) / 0.75, "metric", "float64")


def test_ties_between_good_and_defective_pixels_are_a_slope() -> None:
    # 2 of 4 good pixels tie with the region: from (0, 0) straight to (.5, 1)
    scores = np.array([[0.6, 0.6, 0.6, 0.1, 0.1]], np.float32)
    mask = np.array([[True, False, False, False, False]])
    assert_close(measure_aupro([scores], [mask], 0.3), 0.3, "metric", "float64")


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("level_count", [3, 1000])
def test_equals_the_definition_on_maps_of_mixed_sizes(rng: np.random.Generator, limit: float, level_count: int) -> None:
    maps, masks = make_case(rng, (1, 9), (13, 7), (8, 8))
    maps = [np.floor(pixels * level_count) / np.float32(level_count) for pixels in maps]
    masks[1][9:, 3:] = True
    masks.append(np.zeros((5, 6), dtype=bool))
    maps.append(rng.random((5, 6), dtype=np.float32))
    assert_close(measure_aupro(maps, masks, limit), measure_aupro_slowly(maps, masks, limit), "metric", "float64")


@settings(max_examples=60)
@given(
    st.integers(2, 6).flatmap(
        lambda side: st.tuples(
            st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=side * side, max_size=side * side),
            st.lists(st.booleans(), min_size=side * side, max_size=side * side),
        )
    ),
    st.sampled_from([0.01, 0.3, 1.0]),
)
def test_aupro_lies_between_zero_and_one(case: tuple[list[float], list[bool]], limit: float) -> None:
    mask = np.array(case[1])
    if mask.all() or not mask.any():
        return
    side = int(len(mask) ** 0.5)
    value = measure_aupro([np.array(case[0], np.float32).reshape(side, side)], [mask.reshape(side, side)], limit)
    assert 0.0 <= value <= 1.0


def test_aupro_does_not_change_when_scores_are_rescaled(rng: np.random.Generator) -> None:
    maps, masks = make_case(rng, (30, 20))
    scaled = [np.exp(7 * pixels) for pixels in maps]
    assert_close(measure_aupro(scaled, masks), measure_aupro(maps, masks), "metric", "float64")


@pytest.mark.parametrize("level_count", [1, 4, 100_000])
def test_pixel_rocauc_equals_scikit_learn(rng: np.random.Generator, level_count: int) -> None:
    from sklearn.metrics import roc_auc_score

    maps, masks = make_case(rng, (31, 17), (8, 40))
    maps = [np.floor(pixels * level_count) / np.float32(level_count) for pixels in maps]
    scores = np.concatenate([pixels.ravel() for pixels in maps])
    labels = np.concatenate([mask.ravel() for mask in masks])
    assert_close(measure_pixel_rocauc(maps, masks), roc_auc_score(labels, scores), "metric", "float64")


def test_leaves_maps_and_masks_as_they_were(rng: np.random.Generator) -> None:
    maps, masks = make_case(rng, (9, 9))
    copies = maps[0].copy(), masks[0].copy()
    measure_aupro(maps, masks)
    np.testing.assert_array_equal(maps[0], copies[0])
    np.testing.assert_array_equal(masks[0], copies[1])


def test_rocauc_of_known_cases() -> None:
    labels = np.array([False, False, True, True])
    assert measure_rocauc(np.array([0.1, 0.2, 0.8, 0.9]), labels) == 1.0
    assert measure_rocauc(np.array([0.9, 0.8, 0.2, 0.1]), labels) == 0.0
    assert measure_rocauc(np.array([0.5, 0.5, 0.5, 0.5]), labels) == 0.5
    assert measure_rocauc(np.array([0.1, 0.4, 0.35, 0.8]), labels) == 0.75


def test_counts_each_of_the_four_outcomes() -> None:
    flagged, labels = np.array([1, 0, 1, 0, 1, 1, 0], dtype=bool), np.array([0, 0, 1, 1, 1, 1, 1], dtype=bool)
    expected = Confusion(found_count=3, missed_count=2, false_alarm_count=1, passed_count=1)
    assert count_confusion(flagged, labels) == expected


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan")])
def test_rejects_a_limit_outside_zero_to_one(limit: float) -> None:
    with pytest.raises(InputError, match="fpr_limit"):
        measure_aupro([np.eye(3, dtype=np.float32)], [np.eye(3, dtype=bool)], limit)


@pytest.mark.parametrize("mask", [np.zeros((3, 3), dtype=bool), np.ones((3, 3), dtype=bool)])
def test_rejects_masks_of_one_class(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="good and defective"):
        measure_aupro([np.eye(3, dtype=np.float32)], [mask])


def test_rejects_a_mask_of_another_size() -> None:
    with pytest.raises(InputError, match="like its map"):
        measure_pixel_rocauc([np.eye(3, dtype=np.float32)], [np.eye(4, dtype=bool)])


def test_rejects_nan_scores() -> None:
    with pytest.raises(InputError, match="NaN"):
        measure_rocauc(np.array([0.5, np.nan]), np.array([False, True]))


def test_rejects_nothing_at_all() -> None:
    with pytest.raises(InputError, match="at least one"):
        measure_aupro([], [])


def test_a_straight_curve_cut_anywhere_is_half_the_limit() -> None:
    assert_close(integrate_curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.3), 0.15, "metric", "float64")

"""The decision, and the list of defects that goes with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndp_rt.decide.decision import is_defective, lowest_reaching
from ndp_rt.decide.regions import find_regions, list_defects


def make_map(*pixels: tuple[int, int, float], shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    smoothed = np.zeros(shape, np.float32)
    for y, x, value in pixels:
        smoothed[y, x] = value
    return smoothed


@given(st.floats(min_value=-2, max_value=2, allow_nan=False), st.integers(min_value=-3, max_value=3))
def test_has_a_defect_exactly_when_the_score_reaches_the_threshold(threshold: float, steps: int) -> None:
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.copysign(np.inf, steps)))
    smoothed = np.full((3, 3), -5, np.float32)
    smoothed[1, 1] = value
    decided = is_defective(float(smoothed.max()), threshold)
    assert decided == (len(list_defects(smoothed, threshold, 3, 3)) == 1)


def test_lowest_reaching_is_the_smallest_float32_that_decides_the_same() -> None:
    for threshold in (0.1, 0.3, 0.5, 1 / 3, 1e-30, 0.1 + 1e-12):
        limit = lowest_reaching(threshold)
        assert is_defective(float(limit), threshold)
        assert not is_defective(float(np.nextafter(limit, np.float32(-np.inf))), threshold)


def test_counts_diagonal_neighbours_as_one_defect() -> None:
    (defect,) = list_defects(make_map((10, 10, 0.9), (11, 11, 0.7)), 0.5, 64, 64)
    assert (defect.x_px, defect.y_px, defect.width_px, defect.height_px, defect.area_px) == (10, 10, 2, 2, 2)
    assert defect.peak == np.float32(0.9)


def test_lists_the_highest_peak_first() -> None:
    defects = list_defects(make_map((1, 1, 0.6), (30, 30, 0.9), (60, 60, 0.7)), 0.5, 64, 64)
    assert [defect.peak for defect in defects] == [np.float32(v) for v in (0.9, 0.7, 0.6)]


def test_scales_boxes_to_the_callers_image() -> None:
    smoothed = make_map()
    smoothed[16:32, 8:16] = 1.0
    (defect,) = list_defects(smoothed, 0.5, 128, 640, mm_per_pixel=0.5)
    assert (defect.x_px, defect.y_px, defect.width_px, defect.height_px) == (80, 32, 80, 32)
    assert defect.area_px == 80 * 32
    assert (defect.x_mm, defect.y_mm, defect.width_mm, defect.height_mm) == (40.0, 16.0, 40.0, 16.0)
    assert defect.area_mm2 == 80 * 32 / 4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (63, 100), (1000, 333)])
def test_boxes_lie_inside_the_image_whatever_its_size(height: int, width: int, rng: np.random.Generator) -> None:
    smoothed = rng.random((64, 128), np.float32)
    defects = list_defects(smoothed, 0.97, height, width)
    assert defects
    for defect in defects:
        assert 0 <= defect.x_px < width and defect.x_px + defect.width_px <= width and defect.width_px >= 1
        assert 0 <= defect.y_px < height and defect.y_px + defect.height_px <= height and defect.height_px >= 1
        assert defect.area_px >= 1
        assert defect.width_mm is None and defect.area_mm2 is None


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.floats(0.2, 0.9), st.integers(1, 200))
def test_strips_find_the_same_regions_as_the_whole(seed: int, h: int, w: int, threshold: float, strip: int) -> None:
    smoothed = np.random.default_rng(seed).random((h, w), np.float32)
    whole, strips = find_regions(smoothed, threshold), find_regions(smoothed, threshold, strip_px=strip)

    def rows(regions: object) -> list[tuple[object, ...]]:
        columns = zip(regions.boxes.tolist(), regions.areas, regions.peaks, strict=True)
        return sorted((*box, area, peak) for box, area, peak in columns)

    assert rows(whole) == rows(strips)


def test_has_no_regions_where_nothing_reaches_the_threshold() -> None:
    assert list_defects(make_map(), 0.5, 64, 64) == ()


def flood(mask: np.ndarray, y: int, x: int) -> list[tuple[int, int]]:
    """Take the region (8 neighbours) of a pixel out of the mask, and return its pixels."""
    found, waiting = [], [(y, x)]
    while waiting:
        y, x = waiting.pop()
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]:
            mask[y, x] = False
            found.append((y, x))
            waiting += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return found


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 0.99), st.integers(0, 5))
def test_regions_are_those_of_a_flood_fill(seed: int, h: int, w: int, threshold: float, margin: int) -> None:
    smoothed = np.pad(np.random.default_rng(seed).random((h, w), np.float32), margin)
    mask, expected = smoothed >= threshold, []
    for y, x in np.argwhere(mask):
        if pixels := flood(mask, int(y), int(x)):
            (top, left), (bottom, right) = np.min(pixels, axis=0), np.max(pixels, axis=0)
            peak = max(smoothed[pixel] for pixel in pixels)
            expected.append((left, top, right + 1, bottom + 1, len(pixels), peak))
    regions = find_regions(smoothed, threshold)
    got = [(*box, area, peak) for box, area, peak in zip(regions.boxes, regions.areas, regions.peaks, strict=True)]
    assert sorted(got) == sorted(expected)

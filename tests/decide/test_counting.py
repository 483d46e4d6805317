"""What of an image counts: ignored pixels and small regions, in the map's pixels and the image's."""

import cv2
import numpy as np
import pytest

from ndp_rt.decide import regions
from ndp_rt.decide.counting import Selection, find_least_area, shrink_mask
from ndp_rt.decide.marks import mark_defects
from ndp_rt.decide.regions import list_defects, mark_regions, scale_area
from ndp_rt.decide.score import score_counted
from ndp_rt.errors import InputError
from ndp_rt.program.program import DecisionRules


def mark(shape: tuple[int, int], *parts: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    for part in parts:
        mask[part] = True
    return mask


def test_a_defect_in_the_ignored_part_does_not_count() -> None:
    smoothed = np.full((32, 32), 0.1, np.float32)
    smoothed[4:8, 4:8], smoothed[20:24, 20:24] = 0.9, 0.6
    ignored = mark((64, 64), np.s_[:32, :32])
    counting = Selection(ignored=ignored, smallest_area_px=1).fit((64, 64), (32, 32))
    assert score_counted(smoothed, DecisionRules(), counting) == np.float32(0.6)
    (defect,) = list_defects(smoothed, 0.5, 64, 64, pixels=counting.pixels, least_area=counting.least_area)
    assert (defect.x_px, defect.y_px, defect.width_px, defect.peak) == (40, 40, 8, np.float32(0.6))


def test_a_region_that_the_mask_cuts_is_what_is_left_of_it() -> None:
    smoothed = np.zeros((16, 16), np.float32)
    smoothed[4, 2:12] = 0.8
    smoothed[4, 3] = 0.95  # ignored, and so no peak
    counting = Selection(ignored=mark((16, 16), np.s_[:, 3:6]), smallest_area_px=4).fit((16, 16), (16, 16))
    (defect,) = list_defects(smoothed, 0.5, 16, 16, pixels=counting.pixels, least_area=counting.least_area)
    assert (defect.x_px, defect.width_px, defect.area_px, defect.peak) == (6, 6, 6, np.float32(0.8))


@pytest.mark.parametrize(("area", "is_defect"), [(1, True), (11, True), (12, True), (13, False)])
def test_a_region_of_exactly_the_smallest_area_counts(area: int, is_defect: bool) -> None:
    smoothed = np.full((16, 16), 0.1, np.float32)
    smoothed[2:5, 2:6] = 0.9  # 12 pixels
    counting = Selection(ignored=None, smallest_area_px=area).fit((16, 16), (16, 16))
    score = score_counted(smoothed, DecisionRules(), counting)
    assert score == (np.float32(0.9) if is_defect else np.float32(0.1))
    assert bool(list_defects(smoothed, 0.5, 16, 16, least_area=counting.least_area)) == is_defect


@pytest.mark.parametrize("map_size", [(16, 16), (64, 64), (37, 91)])
@pytest.mark.parametrize("image_size", [(16, 16), (480, 640), (5, 7)])
def test_least_area_of_the_map_is_the_first_that_is_listed_with_the_area(
    map_size: tuple[int, int], image_size: tuple[int, int]
) -> None:
    for area in (1, 2, 3, 7, 20, 500):
        least = find_least_area(area, image_size, map_size)
        assert scale_area(least, image_size, map_size) >= area
        assert least == 1 or scale_area(least - 1, image_size, map_size) < area


def test_a_pixel_of_the_map_is_ignored_if_half_of_what_it_covers_is() -> None:
    ignored = mark((8, 8), np.s_[:, :3], np.s_[:, 5])  # pairs of columns: 2 of 2, 1 of 2, 1 of 2, 0 of 2
    assert shrink_mask(ignored, (4, 4)).tolist() == [[False, False, False, True]] * 4


@pytest.mark.parametrize(
    ("ignored", "area", "size", "said"),
    [
        (mark((8, 8), np.s_[:2]), 1, (8, 9), "image: expected 8 x 8 pixels, as the ignore mask has, got 8 x 9"),
        (mark((64, 64), np.s_[0, 0]), 1, (64, 64), "got smaller ones, which would change nothing"),
        (None, 65, (8, 8), "in one piece, of 65 pixels or more, got less of 8 x 8"),
        (mark((8, 8), np.s_[4]), 33, (8, 8), "in one piece, of 33 pixels or more"),
        (~mark((64, 64), np.s_[0, 0]), 1, (64, 64), "so nothing could be a defect"),
    ],
)
def test_refuses_what_could_never_be_a_defect(
    ignored: np.ndarray | None, area: int, size: tuple[int, int], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Selection(ignored=ignored, smallest_area_px=area).fit(size, (8, 8))


def test_blanks_ignored_pixels_below_any_threshold() -> None:
    selection = Selection(ignored=mark((4, 4), np.s_[0]), smallest_area_px=1)
    for threshold, expected in ((0.5, 0.0), (0.0, None), (-2.0, None)):
        anomaly_map = np.ones((4, 4), np.float32)
        selection.blank(anomaly_map, threshold)
        assert (anomaly_map[1:] == 1).all()
        assert (anomaly_map[0] < threshold).all() and (expected is None or (anomaly_map[0] == expected).all())


def test_marks_the_large_regions_alone(rng: np.random.Generator) -> None:
    smoothed = np.zeros((16, 16), np.float32)
    smoothed[2:6, 2:6] = smoothed[3, 6:10] = smoothed[12, 12] = smoothed[0, 0] = 0.9
    large = mark_regions(smoothed, np.float32(0.5), None, 3)
    assert large.sum() == 20 and not large[12, 12] and not large[0, 0]
    upscaled = np.repeat(np.repeat(smoothed, 4, axis=0), 4, axis=1)
    mask = mark_defects(upscaled, 0.5, large)
    assert mask.sum() == 20 * 16 and not mask[:4, :4].any() and not mask[48:].any()
    assert np.array_equal(mark_defects(upscaled, 0.5, None), upscaled >= 0.5)
    assert np.array_equal(mark_defects(smoothed, 0.5, large), large)


def test_marks_no_pixels_beside_the_ignored_ones_that_belong_to_no_defect() -> None:
    """The map decides what is ignored, and its pixels are larger than the image's."""
    smoothed = np.full((64, 64), 0.1, np.float32)
    smoothed[:, :26], smoothed[40:44, 50:54] = 0.9, 0.9  # a fixture and a defect
    selection = Selection(ignored=mark((256, 256), np.s_[:, :102]), smallest_area_px=1)
    counting = selection.fit((256, 256), (64, 64))
    image = cv2.resize(smoothed, (256, 256), interpolation=cv2.INTER_LINEAR)
    selection.blank(image, 0.5)
    marked = mark_defects(image, 0.5, counting.mark_regions(smoothed, 0.5))
    assert marked[:, :120].sum() == 0
    assert marked[164:172, 204:212].all()


@pytest.mark.parametrize("strip_px", [2**22, 64])
@pytest.mark.parametrize("least_area", [1, 4])
def test_marks_a_large_map_as_a_small_one(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, strip_px: int, least_area: int
) -> None:
    smoothed, pixels = rng.random((40, 30), np.float32), rng.random((40, 30)) < 0.8
    monkeypatch.setattr(regions, "STRIP_PX", strip_px)
    found = mark_regions(smoothed, np.float32(0.6), pixels, least_area)
    _, labels = cv2.connectedComponents(((smoothed >= np.float32(0.6)) & pixels).view(np.uint8), connectivity=8)
    sizes = np.bincount(labels.ravel())
    assert np.array_equal(found, (labels > 0) & (sizes[labels] >= least_area))

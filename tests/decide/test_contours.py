"""The outlines of defects, in pixels of the caller's image."""

import cv2
import numpy as np
import pytest

from ndp_rt.decide.regions import list_defects


def fill(contour: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    filled = np.zeros(shape, np.uint8)
    cv2.fillPoly(filled, [contour], 1)
    return filled != 0


def test_a_contour_outlines_its_region_and_no_other() -> None:
    smoothed = np.zeros((20, 20), np.float32)
    smoothed[2:12, 2:12] = 0.9
    smoothed[4:10, 4:10] = 0.0  # a hole
    smoothed[6, 6] = 0.8  # in the hole, in the box of the ring
    ring, dot = list_defects(smoothed, 0.5, 20, 20, with_contours=True)
    assert ring.contour is not None and ring.contour.dtype == np.int32
    assert {tuple(point) for point in ring.contour.tolist()} == {(2, 2), (2, 11), (11, 11), (11, 2)}
    assert dot.contour is not None and dot.contour.tolist() == [[6, 6]]


def test_a_contour_at_the_maps_size_encloses_exactly_a_region_without_holes(rng: np.random.Generator) -> None:
    smoothed = cv2.GaussianBlur(rng.random((60, 80), np.float32), (0, 0), 2)
    for defect in list_defects(smoothed, float(np.quantile(smoothed, 0.93)), 60, 80, with_contours=True):
        assert defect.contour is not None
        filled = fill(defect.contour, (60, 80))
        assert filled.sum() >= defect.area_px and smoothed[filled].max() == np.float32(defect.peak)


@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (63, 65), (480, 640), (20, 20)])
def test_a_contour_fills_the_box_at_any_size_of_the_image(shape: tuple[int, int], rng: np.random.Generator) -> None:
    smoothed = cv2.GaussianBlur(rng.random((64, 64), np.float32), (0, 0), 1)
    pixels = rng.random((64, 64)) < 0.95
    defects = list_defects(smoothed, float(np.quantile(smoothed, 0.9)), *shape, pixels=pixels, with_contours=True)
    assert len(defects) > 5
    for defect in defects:
        assert defect.contour is not None
        x, y = defect.contour.T
        assert (x.min(), x.max() + 1 - x.min()) == (defect.x_px, defect.width_px)
        assert (y.min(), y.max() + 1 - y.min()) == (defect.y_px, defect.height_px)


def test_contours_scale_with_the_image() -> None:
    smoothed = np.zeros((16, 16), np.float32)
    smoothed[4:8, 2:6] = 1.0
    (defect,) = list_defects(smoothed, 0.5, 160, 320, with_contours=True)
    assert defect.contour is not None
    assert {tuple(point) for point in defect.contour.tolist()} == {(40, 40), (40, 79), (119, 79), (119, 40)}


def test_defects_compare_without_their_contours() -> None:
    smoothed = np.zeros((8, 8), np.float32)
    smoothed[2, 2:5] = 1.0
    assert list_defects(smoothed, 0.5, 8, 8) == list_defects(smoothed, 0.5, 8, 8, with_contours=True)
    assert list_defects(smoothed, 0.5, 8, 8)[0].contour is None

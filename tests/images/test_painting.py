"""Artificial defects: what is painted, where, and that chance comes from the generator alone."""

import numpy as np
import numpy.typing as npt
import pytest

from ndp_rt.images.painting import (
    DefectSettings,
    blob_mask,
    draw_mask,
    line_mask,
    log_uniform,
    noise_mask,
    paint_defect,
    paint_spots,
    perlin,
)

FloatArray = npt.NDArray[np.float32]
ALWAYS = DefectSettings(defect_free_share=0.0)


def checkered(_rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Return a texture that is like no surface: black and white pixels in turn."""
    pattern = (np.indices((height, width)).sum(axis=0) % 2).astype(np.float32)
    return np.repeat(pattern[:, :, None], 3, axis=2)


def make_surface(rng: np.random.Generator, height: int, width: int, channels: int) -> FloatArray:
    return rng.uniform(0.35, 0.65, (height, width, channels)).astype(np.float32)


def test_perlin_noise_is_zero_on_the_lattice_and_small_elsewhere(rng: np.random.Generator) -> None:
    x = np.arange(0.0, 8.0, 0.25, dtype=np.float32)
    noise = perlin(rng, x[None, :], x[:, None])
    assert noise.shape == (32, 32)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise[::4, ::4], 0.0)
    assert 0.1 < np.abs(noise).max() < 1.0


def test_log_uniform_numbers_stay_in_their_range(rng: np.random.Generator) -> None:
    numbers = [log_uniform(rng, 8.0, 5000.0) for _ in range(200)]
    assert min(numbers) >= 8.0
    assert max(numbers) <= 5000.0
    assert np.median(numbers) < 600.0  # a uniform draw would have 2500


@pytest.mark.parametrize("area_px", [10.0, 60.0, 400.0])
def test_a_blot_has_about_the_area_asked_for(rng: np.random.Generator, area_px: float) -> None:
    areas = [blob_mask(rng, 128, 160, area_px).sum() for _ in range(40)]
    whole = [area for area in areas if area]  # a blot may lie across the border
    assert 0.4 * area_px < np.median(whole) < 2.0 * area_px
    assert max(whole) < 4.0 * area_px


def test_lines_are_thin(rng: np.random.Generator) -> None:
    for _ in range(20):
        mask = line_mask(rng, 96, 128)
        assert mask.shape == (96, 128)
        assert mask.mean() < 0.25


def test_noise_covers_between_one_and_twenty_six_percent(rng: np.random.Generator) -> None:
    shares = [noise_mask(rng, 96, 128).mean() for _ in range(10)]
    assert all(0.005 < share < 0.26 for share in shares)


@pytest.mark.parametrize("size", [(64, 64), (65, 127), (33, 7)])
def test_a_mask_is_never_empty(rng: np.random.Generator, size: tuple[int, int]) -> None:
    for _ in range(30):
        mask = draw_mask(rng, *size, ALWAYS)
        assert mask.shape == size
        assert mask.any()


def test_the_smallest_areas_asked_for_are_drawn(rng: np.random.Generator) -> None:
    settings = DefectSettings(blob_share=1.0, line_share=0.0, largest_area=1e-6)
    assert draw_mask(rng, 64, 64, settings).any()


def test_areas_range_over_two_orders_of_magnitude(rng: np.random.Generator) -> None:
    areas = [draw_mask(rng, 128, 128, ALWAYS).mean() for _ in range(150)]
    assert np.quantile(areas, 0.1) < 0.003
    assert np.quantile(areas, 0.9) > 0.03


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_is_unchanged_outside_the_painted_area(rng: np.random.Generator, channels: int) -> None:
    surface = make_surface(rng, 64, 96, channels)
    before = surface.copy()
    for _ in range(20):
        painted, label = paint_defect(rng, surface, checkered, ALWAYS)
        assert painted.dtype == np.float32
        assert painted.shape == surface.shape
        assert 0.0 <= painted.min() <= painted.max() <= 1.0
        changed = (painted != surface).any(axis=2)
        if label.any():
            assert changed[label].mean() > 0.5  # labels are where the image changed
            assert changed.mean() < 0.6
        else:
            assert not changed.any()
    np.testing.assert_array_equal(surface, before)


def test_grey_images_get_grey_defects(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 1)
    assert paint_defect(rng, surface, checkered, ALWAYS)[0].shape == (64, 64, 1)


def test_defect_free_images_come_with_an_empty_mask(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 3)
    painted, label = paint_defect(rng, surface, checkered, DefectSettings(defect_free_share=1.0))
    assert painted is surface
    assert not label.any()


def test_the_same_seed_paints_the_same_defect(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 3)
    first, second = (paint_defect(np.random.default_rng(5), surface, checkered, ALWAYS) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_lines_reach_the_length_asked_for(rng: np.random.Generator) -> None:
    long = DefectSettings(defect_free_share=0.0, line_share=1.0, blob_share=0.0, shortest_line=1.0)
    extents = []
    for _ in range(30):
        rows, columns = np.nonzero(draw_mask(rng, 128, 128, long))
        extents.append(max(np.ptp(rows), np.ptp(columns)))
    assert np.median(extents) > 60  # of 128; the border cuts many


def test_darker_defects_are_darker(rng: np.random.Generator) -> None:
    dark = DefectSettings(defect_free_share=0.0, texture_share=0.0, shade_share=1.0, darker_share=1.0)
    surface = make_surface(rng, 64, 64, 1)
    for _ in range(15):
        painted, label = paint_defect(rng, surface, checkered, dark)
        if label.any():
            assert painted[label].mean() < surface[label].mean()


def test_spots_change_a_good_image_within_its_range(rng: np.random.Generator) -> None:
    surface = make_surface(rng, 64, 64, 3)
    spotted = [paint_spots(rng, surface, checkered, ALWAYS) for _ in range(10)]
    assert all(s.shape == surface.shape and 0.0 <= s.min() <= s.max() <= 1.0 for s in spotted)
    assert sum(not np.array_equal(s, surface) for s in spotted) >= 8


def test_rejects_a_share_above_one() -> None:
    with pytest.raises(ValueError, match="blob_share: expected 0 to 1, got 1.5"):
        DefectSettings(blob_share=1.5)

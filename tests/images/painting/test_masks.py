"""Shapes of artificial defects."""

import numpy as np
import pytest

from ndp_rt.images.painting import masks
from ndp_rt.images.painting.noise import draw_noise, log_uniform


def test_log_uniform_numbers_stay_in_their_range(rng: np.random.Generator) -> None:
    numbers = [log_uniform(rng, 8.0, 5000.0) for _ in range(200)]
    assert min(numbers) >= 8.0
    assert max(numbers) <= 5000.0
    assert np.median(numbers) < 600.0  # a uniform draw would have 2500


@pytest.mark.parametrize("size", [(40, 64), (1, 9), (7, 3)])
def test_noise_is_smooth_and_of_the_size_asked_for(rng: np.random.Generator, size: tuple[int, int]) -> None:
    noise = draw_noise(rng, *size, 16.0, 2)
    assert noise.shape == size
    assert noise.dtype == np.float32
    assert np.abs(noise).max() < 8.0
    assert np.abs(np.diff(noise, axis=1)).max() < 0.6


@pytest.mark.parametrize("area_px", [10.0, 60.0, 400.0])
def test_a_blot_has_about_the_area_asked_for(rng: np.random.Generator, area_px: float) -> None:
    areas = [masks.blot(rng, 128, 160, area_px).sum() for _ in range(60)]
    whole = [area for area in areas if area]  # a blot may lie across the border
    assert 0.4 * area_px < np.median(whole) < 2.5 * area_px
    assert max(whole) < 6.0 * area_px


def test_lines_are_thin(rng: np.random.Generator) -> None:
    for _ in range(30):
        mask = masks.line(rng, 96, 128)
        assert mask.shape == (96, 128)
        assert mask.mean() < 0.25


def test_patches_cover_the_share_asked_for(rng: np.random.Generator) -> None:
    for share in (0.01, 0.2):
        assert masks.patches(rng, 96, 128, share).mean() == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("size", [(64, 64), (33, 7), (1, 40)])
@pytest.mark.parametrize("shape", [masks.area, masks.line, masks.specks, masks.any_shape])
def test_shapes_take_any_size(rng: np.random.Generator, shape, size: tuple[int, int]) -> None:
    for _ in range(10):
        mask = shape(rng, *size)
        assert mask.shape == size
        assert mask.dtype == np.bool_

"""MemSeg's simulated anomalies."""

import numpy as np
import pytest

from ndp_rt.images.painting import simulation
from ndp_rt.images.painting.simulation import draw_mask, draw_perlin, simulate_anomaly, take_structure


@pytest.mark.parametrize(("size", "cells"), [((64, 64), (1, 1)), ((64, 96), (4, 32)), ((33, 50), (8, 2))])
def test_perlin_noise_is_zero_at_the_corners_of_its_cells_and_smooth(
    rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]
) -> None:
    noise = draw_perlin(rng, *size, *cells)
    assert noise.shape == size and noise.dtype == np.float32
    assert 0.0 < np.abs(noise).max() <= 1.01
    assert noise[0, 0] == 0.0
    if size == (64, 96):
        assert np.abs(noise[::16, ::3]).max() < 1e-6
    steps = np.abs(np.diff(noise, axis=0)).max() * size[0] / cells[0]  # of one cell
    assert steps < 6.0


def test_masks_come_in_many_sizes(rng: np.random.Generator) -> None:
    shares = np.array([draw_mask(rng, 128, 128).mean() for _ in range(200)])
    assert shares.min() > 0.0 and np.quantile(shares, 0.9) < 0.2
    assert np.quantile(shares, 0.9) > 2.0 * np.quantile(shares, 0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_outside_of_the_mask_stays(rng: np.random.Generator, channels: int) -> None:
    image = rng.random((64, 96, channels), np.float32)
    before = image.copy()
    painted, mask = simulate_anomaly(rng, image, take_structure)
    assert np.array_equal(image, before)
    assert mask.any() and painted.shape == image.shape and painted.dtype == np.float32
    assert np.array_equal(painted[~mask], image[~mask])
    assert (np.abs(painted - image)[mask] > 0.0).mean() > 0.9


def test_strengths_reach_from_faint_to_whole(rng: np.random.Generator) -> None:
    image = np.zeros((32, 32, 1), np.float32)
    peaks = [simulate_anomaly(rng, image, lambda rng, image: np.ones_like(image))[0].max() for _ in range(300)]
    assert 0.15 <= min(peaks) < 0.2 and 0.95 < max(peaks) <= 1.0


def test_a_structure_is_the_image_in_other_places(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = np.arange(32, dtype=np.float32).reshape(4, 8) / 64
    image = np.repeat(np.repeat(cells, 8, axis=0), 6, axis=1)[:, :, None]  # 32 x 48: cells of 8 x 6
    shuffled = simulation._shuffle_cells(rng, image)
    assert not np.array_equal(shuffled, image)
    assert np.array_equal(np.sort(shuffled[::8, ::6].ravel()), cells.ravel())
    structure = take_structure(rng, image)
    assert structure.shape == image.shape and structure.min() >= 0.0 and structure.max() <= 1.0


def test_the_hue_of_a_coloured_image_changes(rng: np.random.Generator) -> None:
    image = np.zeros((32, 32, 3), np.float32)
    image[..., 0] = 0.8
    hues = [int(take_structure(rng, image).mean(axis=(0, 1)).argmax()) for _ in range(40)]
    assert set(hues) == {0, 1, 2}


def test_the_same_seed_gives_the_same_anomaly() -> None:
    image = np.random.default_rng(3).random((64, 64, 3), np.float32)
    first, second = (simulate_anomaly(np.random.default_rng(5), image, take_structure) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))

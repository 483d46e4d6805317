"""Painted defects and labelled images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.errors import DataError
from ndp_rt.program.manifest import InputContract
from ndp_rt.quantise.samples import (
    FEWEST_PAINTED,
    keep,
    paint_for_ranges,
    paint_samples,
    read_labelled,
    resize_mask,
)
from ndp_rt.quantise.trials import assign_times


def test_images_for_ranges_are_the_good_ones_and_others_with_defects(rng: np.random.Generator) -> None:
    good = rng.uniform(0.2, 0.8, (3, 3, 64, 64)).astype(np.float32)
    images = paint_for_ranges(good, 1)
    assert images.shape == (3 + FEWEST_PAINTED, 3, 64, 64)
    assert np.array_equal(images[:3], good)
    for number in range(FEWEST_PAINTED):
        assert np.abs(images[3 + number] - good[number % 3]).max() > 0.03


def test_painted_samples_are_good_and_defective_in_turn(rng: np.random.Generator) -> None:
    good = rng.uniform(0.2, 0.8, (3, 3, 64, 64)).astype(np.float32)
    samples = paint_samples(good, 1)
    kept = samples.take(12)
    assert [one.is_defective for one in kept] == [False, True] * 6
    for number in range(6):
        whole, painted = kept[2 * number], kept[2 * number + 1]
        changed = np.abs(whole.image - painted.image).max(axis=0).ravel()
        assert changed[painted.places[: len(painted.weights)]].max() > 0.02
        assert np.abs(whole.image - good[number % 3]).max() > 0.0  # changed a little
        assert len(whole.weights) == 0 and len(whole.places) >= 256


def test_samples_depend_on_seed_and_number_alone(rng: np.random.Generator) -> None:
    good = rng.uniform(0.2, 0.8, (2, 3, 64, 64)).astype(np.float32)
    at_once, in_parts, other = (paint_samples(good, seed) for seed in (1, 1, 2))
    in_parts.take(2)
    pairs = list(zip(at_once.take(6), in_parts.take(6), strict=True))
    assert all(np.array_equal(one.pixels, again.pixels) for one, again in pairs)
    assert not np.array_equal(at_once.take(2)[1].pixels, other.take(2)[1].pixels)


def test_no_more_samples_than_memory_allows() -> None:
    samples = paint_samples(np.zeros((1, 3, 4096, 4096), np.float32), 1)
    assert samples.most == samples.fewest == 5
    assert samples.describe(80) == "5 images, half of them with painted defects, made of 1 good ones"


def test_kept_pixels_are_all_defective_ones_and_a_grid_of_good_ones(rng: np.random.Generator) -> None:
    mask = np.zeros((128, 64), np.bool_)
    mask[3:5, 7:9] = mask[50, 50] = True
    kept = keep(rng.random((3, 128, 64)).astype(np.float32), mask)
    assert sorted(kept.places[:5]) == np.flatnonzero(mask).tolist()
    assert kept.weights.tolist() == [0.25] * 4 + [1.0]
    assert not mask.ravel()[kept.places[5:]].any() and len(kept.places) > 1500
    grey = np.repeat(rng.integers(0, 256, (1, 128, 64)).astype(np.float32) / 255, 3, axis=0)
    assert keep(grey, mask).pixels.shape == (1, 128, 64) and np.array_equal(keep(grey, mask).image, grey)


def test_an_image_that_no_defect_changes_is_refused(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def paint_nothing(rng: object, image: np.ndarray, *others: object) -> tuple[np.ndarray, np.ndarray]:
        return image, np.zeros(image.shape[:2], np.bool_)

    monkeypatch.setattr("ndp_rt.quantise.samples.paint_defect", paint_nothing)
    with pytest.raises(DataError, match="got image 1 of 2, which looks the same with 8 defects"):
        paint_for_ranges(rng.uniform(0.0, 1.0, (2, 3, 64, 64)).astype(np.float32), 1)


def test_masks_keep_a_single_pixel_when_they_shrink_and_their_shape_when_they_grow() -> None:
    mask = np.zeros((256, 128), np.bool_)
    mask[200, 100] = True
    small = resize_mask(mask, 64, 64)
    assert np.argwhere(small).tolist() == [[50, 50]]
    grown = resize_mask(mask, 512, 256)
    assert np.argwhere(grown).tolist() == [[400, 200], [400, 201], [401, 200], [401, 201]]
    assert np.array_equal(resize_mask(mask, 256, 128), mask)


def test_labelled_images_come_with_their_masks(tmp_path: Path, rng: np.random.Generator) -> None:
    for folder in ("test/good", "test/hole", "ground_truth/hole"):
        (tmp_path / folder).mkdir(parents=True)
    image = rng.integers(0, 256, (96, 96), dtype=np.uint8)
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 30:60] = 255
    cv2.imwrite(str(tmp_path / "test/good/a.png"), image)
    cv2.imwrite(str(tmp_path / "test/hole/a.png"), image)
    cv2.imwrite(str(tmp_path / "ground_truth/hole/a_mask.png"), mask)
    samples = read_labelled(tmp_path, InputContract(height_px=64, width_px=64))
    kept = samples.take(samples.fewest)
    assert [one.is_defective for one in kept] == [False, True]
    rows, columns = np.divmod(kept[1].places[: len(kept[1].weights)], 64)
    assert len(rows) == 400 and set(rows) == set(columns) == set(range(20, 40))


def test_profiled_times_find_their_layers() -> None:
    nodes = {"a": "/a/Conv", "b": "/b/ConvTranspose", "c": "/c/Conv"}
    times = {"/a/Conv/WithoutBiases": 1.0, "ConvolutionBackpropData_7": 2.0, "/c/Conv": 3.0, "other": 4.0, "x": 1.0}
    assert assign_times(times, nodes) == {"": 5.0, "a": 1.0, "b": 2.0, "c": 3.0}
    # Two unnamed ones for one layer: nobody can tell which it is.
    times["ConvolutionBackpropData_9"] = 7.0
    assert assign_times(times, nodes) == {"": 14.0, "a": 1.0, "c": 3.0}

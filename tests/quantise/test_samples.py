"""Painted defects and labelled images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.errors import DataError
from ndp_rt.program.manifest import InputContract
from ndp_rt.quantise.samples import FEWEST_PAINTED, paint_defects, read_labelled, resize_mask
from ndp_rt.quantise.trials import assign_times


def test_painted_defects_differ_from_the_surface_inside_their_masks_alone(rng: np.random.Generator) -> None:
    good = rng.uniform(0.2, 0.8, (3, 3, 64, 64)).astype(np.float32)
    samples = paint_defects(good, 1)
    assert samples.images.shape == (3 + FEWEST_PAINTED, 3, 64, 64)
    assert samples.is_defective.tolist() == [False] * 3 + [True] * FEWEST_PAINTED
    assert np.array_equal(samples.images[:3], good)
    for index in range(FEWEST_PAINTED):
        changed = np.abs(samples.images[3 + index] - good[index % 3]).max(axis=0)
        assert changed[samples.masks[3 + index]].max() > 0.03
    again, other = paint_defects(good, 1), paint_defects(good, 2)
    assert np.array_equal(samples.images, again.images) and not np.array_equal(samples.images, other.images)


def test_an_image_that_no_defect_changes_is_refused(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def paint_nothing(rng: object, image: np.ndarray, *others: object) -> tuple[np.ndarray, np.ndarray]:
        return image, np.zeros(image.shape[:2], np.bool_)

    monkeypatch.setattr("ndp_rt.quantise.samples.paint_defect", paint_nothing)
    with pytest.raises(DataError, match="got image 1 of 2, which looks the same with 8 defects"):
        paint_defects(rng.uniform(0.0, 1.0, (2, 3, 64, 64)).astype(np.float32), 1)


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
    assert samples.is_defective.tolist() == [False, True]
    assert samples.masks[1, 20:40, 20:40].all() and samples.masks[1].sum() == 400


def test_profiled_times_find_their_layers() -> None:
    nodes = {"a": "/a/Conv", "b": "/b/ConvTranspose", "c": "/c/Conv"}
    times = {"/a/Conv/WithoutBiases": 1.0, "ConvolutionBackpropData_7": 2.0, "/c/Conv": 3.0, "other": 4.0, "x": 1.0}
    assert assign_times(times, nodes) == {"": 5.0, "a": 1.0, "b": 2.0, "c": 3.0}
    # Two unnamed ones for one layer: nobody can tell which it is.
    times["ConvolutionBackpropData_9"] = 7.0
    assert assign_times(times, nodes) == {"": 14.0, "a": 1.0, "c": 3.0}

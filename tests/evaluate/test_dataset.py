"""Listing labelled images and reading their masks."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.evaluate.dataset import GOOD, list_samples, read_mask


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def make_data(root: Path) -> Path:
    """Write two good images, one crack with a mask, and one hole with none."""
    image = np.full((6, 8), 90, np.uint8)
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:5] = 255
    for name in ("test/good/b.png", "test/good/a.png", "test/crack/a.png", "test/hole/a.png"):
        write_png(root / name, image)
    write_png(root / "ground_truth/crack/a_mask.png", mask)
    return root


def test_lists_good_images_first_and_finds_the_masks(tmp_path: Path) -> None:
    samples = list_samples(make_data(tmp_path))
    assert [(one.kind, one.path.name) for one in samples] == [
        (GOOD, "a.png"),
        (GOOD, "b.png"),
        ("crack", "a.png"),
        ("hole", "a.png"),
    ]
    assert [one.mask_path for one in samples] == [None, None, tmp_path / "ground_truth/crack/a_mask.png", None]


def test_takes_a_mask_of_the_same_name_without_suffix(tmp_path: Path) -> None:
    make_data(tmp_path)
    other = write_png(tmp_path / "ground_truth/hole/a.bmp", np.zeros((6, 8), np.uint8))
    assert list_samples(tmp_path)[-1].mask_path == other


def test_leaves_hidden_files_and_folders_out(tmp_path: Path) -> None:
    make_data(tmp_path)
    (tmp_path / "test/good/.DS_Store").write_bytes(b"x")
    (tmp_path / "test/.cache").mkdir()
    (tmp_path / "test/.cache/a.png").write_bytes(b"x")
    assert len(list_samples(tmp_path)) == 4


def test_lists_files_that_are_no_images_so_that_they_get_reported(tmp_path: Path) -> None:
    make_data(tmp_path)
    (tmp_path / "test/crack/notes.txt").write_text("x")
    assert "notes.txt" in [one.path.name for one in list_samples(tmp_path)]


def test_names_the_layout_when_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder"):
        list_samples(tmp_path / "missing")


def test_says_what_it_found_when_there_is_no_test_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="expected a folder .test., got train"):
        list_samples(tmp_path)


def test_rejects_data_without_good_images(tmp_path: Path) -> None:
    make_data(tmp_path)
    for path in (tmp_path / "test/good").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="expected good images"):
        list_samples(tmp_path)


def test_rejects_data_with_good_images_alone(tmp_path: Path) -> None:
    write_png(tmp_path / "test/good/a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="got good ones only"):
        list_samples(tmp_path)


@pytest.mark.parametrize("value", [1, 128, 255])
def test_any_value_but_zero_is_the_defect(tmp_path: Path, value: int) -> None:
    pixels = np.zeros((5, 7), np.uint8)
    pixels[1, 2] = value
    mask = read_mask(write_png(tmp_path / "m.png", pixels), 5, 7)
    assert mask.dtype == np.bool_
    assert mask.sum() == 1 and mask[1, 2]


def test_takes_a_mask_whose_three_channels_are_equal(tmp_path: Path) -> None:
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[0, 0] = 255
    assert read_mask(write_png(tmp_path / "m.png", pixels), 5, 7).sum() == 1


def test_takes_a_mask_that_covers_the_image(tmp_path: Path) -> None:
    assert read_mask(write_png(tmp_path / "m.png", np.full((5, 7), 255, np.uint8)), 5, 7).all()


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.eye(5, 6, dtype=np.uint8), "its image.s 5 x 7 pixels, got 5 x 6"),
        (np.arange(35, dtype=np.uint8).reshape(5, 7), "35 values from 0 to 34"),
        (np.pad(np.full((3, 5), 9, np.uint8), 1, constant_values=3), "2 values from 3 to 9"),
        (np.zeros((5, 7), np.uint8), "got 0 alone"),
        (np.stack([np.eye(5, 7, dtype=np.uint8)] * 2 + [np.zeros((5, 7), np.uint8)], axis=2), "colours"),
    ],
)
def test_rejects_a_mask_that_does_not_fit(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_mask(write_png(tmp_path / "m.png", pixels), 5, 7)


def test_rejects_a_mask_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(ImageFileError):
        read_mask(tmp_path / "m.png", 5, 7)

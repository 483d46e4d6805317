"""Ignore masks, from files and arrays: which pixels they mark, and what is refused."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.masks import take_ignore_mask

MARKED = np.zeros((5, 7), np.bool_)
MARKED[1:3, 2:6] = True


def write(path: Path, pixels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
@pytest.mark.parametrize("value", [1, 128, 255])
def test_marks_what_is_not_0(tmp_path: Path, suffix: str, value: int) -> None:
    path = write(tmp_path / f"mask.{suffix}", MARKED.astype(np.uint8) * np.uint8(value))
    assert np.array_equal(take_ignore_mask(path), MARKED)
    assert np.array_equal(take_ignore_mask(str(path)), MARKED)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int64"])
def test_takes_arrays_and_keeps_a_copy(dtype: str) -> None:
    given = MARKED.astype(dtype)
    mask = take_ignore_mask(given)
    given[:] = 0
    assert mask.dtype == np.bool_ and np.array_equal(mask, MARKED)


def test_takes_16_bits_grey_colours_and_opaque_alpha(tmp_path: Path) -> None:
    deep = write(tmp_path / "deep.png", MARKED.astype(np.uint16) * np.uint16(60000))
    grey = np.repeat((MARKED * np.uint8(255))[..., np.newaxis], 3, axis=2)
    opaque = np.dstack([grey, np.full(MARKED.shape, 255, np.uint8)])
    for path in (deep, write(tmp_path / "rgb.png", grey), write(tmp_path / "rgba.png", opaque)):
        assert np.array_equal(take_ignore_mask(path), MARKED)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.zeros((5, 7), np.uint8), "got 0 alone"),
        (np.full((5, 7), 255, np.uint8), "got every pixel marked"),
        (np.arange(35, dtype=np.uint8).reshape(5, 7), "got 35 values from 0 to 34"),
        (MARKED.astype(np.uint8) + np.uint8(1), "got 2 values from 1 to 2"),
        (np.dstack([MARKED * np.uint8(255), *[np.zeros((5, 7), np.uint8)] * 2]), "got colours"),
        (np.dstack([*[np.zeros((5, 7), np.uint8)] * 3, MARKED * np.uint8(255)]), "got a transparent part"),
    ],
)
def test_refuses_files_that_say_something_else(tmp_path: Path, pixels: np.ndarray, got: str) -> None:
    path = write(tmp_path / "mask.png", pixels)
    with pytest.raises(InputError, match=f"mask.png: expected a mask with 0 for what counts .*{got}"):
        take_ignore_mask(path)


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (np.zeros((5, 7, 1), np.uint8), r"got uint8 \[5, 7, 1\]"),
        (np.zeros((0, 7), np.uint8), r"got uint8 \[0, 7\]"),
        (MARKED.astype(np.float32), r"got float32 \[5, 7\]"),
        (np.zeros((5, 7), np.uint8), "got 0 alone"),
        (np.ones((5, 7), np.bool_), "got every pixel marked"),
    ],
)
def test_refuses_other_arrays(mask: np.ndarray, got: str) -> None:
    with pytest.raises(InputError, match=f"ignore_mask: expected .*{got}"):
        take_ignore_mask(mask)


@pytest.mark.parametrize("mask", [[[0, 1], [0, 0]], b"mask.png", 1, None])
def test_refuses_what_is_neither_file_nor_array(mask: Any) -> None:
    with pytest.raises(InputError, match=f"ignore_mask: expected a file, .* got {type(mask).__name__}"):
        take_ignore_mask(mask)


def test_a_file_that_cannot_be_read_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"none\.png"):
        take_ignore_mask(tmp_path / "none.png")

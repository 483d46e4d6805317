"""Pictures in every pixel format, and the checksums that both sides make of what they give."""

from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bench.capi.host import read_score, sum_values, write_score
from ndp_rt.bench.capi.pictures import (
    FORMATS,
    describe,
    lay_out,
    make_large_picture,
    make_picture_of_each_format,
)
from ndp_rt.bundle.open import Bundle
from tests.capi.library import FORMATS as VALUES


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_every_format_holds_the_image(rng: np.random.Generator, pixel_format: str) -> None:
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    pixels = lay_out(image, pixel_format)
    value_count, dtype = VALUES[pixel_format.upper()]
    assert pixels.dtype == dtype and pixels.shape == ((5, 7) if value_count == 1 else (5, 7, value_count))
    bytes_again = pixels // 257 if dtype is np.uint16 else pixels
    if value_count == 1:
        assert np.array_equal(bytes_again, image[..., 1])
    else:
        order = [2, 1, 0] if pixel_format.startswith("bgr") else [0, 1, 2]
        assert np.array_equal(bytes_again[..., order], image)


def test_there_is_one_of_each_format_and_no_size_twice(bundle: Bundle) -> None:
    pictures = make_picture_of_each_format(bundle)
    assert [one.pixel_format for one in pictures] == list(FORMATS) == [name.lower() for name in VALUES]
    assert len({one.pixels.shape[:2] for one in pictures}) == len(pictures)
    assert make_large_picture(bundle).pixels.shape == (96, 96)  # tiles have 64


def test_a_file_holds_the_raw_pixels_and_no_two_have_one_name(bundle: Bundle, tmp_path: Path) -> None:
    pictures = make_picture_of_each_format(bundle)
    described = [describe(one, tmp_path) for one in pictures]
    assert len({path for path, *_ in described}) == len(pictures)
    for one, (path, pixel_format, width, height) in zip(pictures, described, strict=True):
        assert path.read_bytes() == one.pixels.tobytes() and pixel_format == one.pixel_format
        assert one.pixels.shape[:2] == (height, width)


def test_a_changed_value_and_two_that_changed_places_give_another_checksum(rng: np.random.Generator) -> None:
    values = rng.random((8, 9), np.float32)
    changed, swapped = values.copy(), values.copy()
    changed[7, 8] = np.nextafter(changed[7, 8], np.float32(2))
    swapped[0, 0], swapped[0, 1] = values[0, 1], values[0, 0]
    assert len({sum_values(one) for one in (values, changed, swapped)}) == 3
    assert sum_values(values) == sum_values(np.ascontiguousarray(values.T).T)
    assert sum_values(np.uint8([[1, 2], [3, 255]])) == f"{1 + 2 * 3 + 3 * 5 + 255 * 7:016x}"


def test_a_score_keeps_its_bits() -> None:
    for score in (0.0, 0.1, np.nextafter(0.5, 1.0)):
        assert read_score({"score": write_score(float(score))}) == score

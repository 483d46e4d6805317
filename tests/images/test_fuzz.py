"""Every kind of image file, damaged in every way: cut, holed, flipped, mixed up. It is an image or one clear error."""

import struct

import numpy as np
import pytest

from ndp_rt.errors import ImageFileError
from ndp_rt.images.read import find_reader
from tests.images.encodings import Picture
from tests.images.fuzz import run
from tests.images.reading import read, refuse
from tests.images.samples import make_all_samples, make_samples

SAMPLES = make_samples(np.random.default_rng(0))
PNGS = tuple(name for name in SAMPLES if name.startswith("png"))
WEBPS = tuple(name for name in SAMPLES if name.startswith("webp"))
HOLES = (1, 2, 3, 4, 8, 16, 32, 64)  # bytes
HOLED = tuple(name for name in SAMPLES if not name.startswith("jpeg"))  # which has nothing that would tell
EXIF_BYTES = 64  # of a PNG's chunk, whose absence tells nothing


def read_or_none(data: bytes) -> Picture | None:
    try:
        return read(data)
    except ImageFileError:
        return None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_header_says_how_many_bytes_the_pixels_take(name: str) -> None:
    _, read_header = find_reader(SAMPLES[name])
    encoded = read_header(SAMPLES[name], None)
    assert encoded.decode(False).nbytes <= encoded.decoded_bytes <= 4 * encoded.decode(False).nbytes


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_of_every_kind_that_is_cut_short_anywhere_is_an_error(name: str) -> None:
    data = SAMPLES[name]
    assert read(data).size
    for length in range(len(data)):
        with pytest.raises(ImageFileError):
            read(data[:length])


@pytest.mark.nightly(but=len(HOLED))
@pytest.mark.parametrize("size", HOLES)
@pytest.mark.parametrize("name", HOLED)
def test_a_missing_piece_anywhere_is_an_error_or_changes_nothing(name: str, size: int) -> None:
    data = SAMPLES[name]
    whole = read(data)
    for start in range(len(data) - size + 1):
        found = read_or_none(data[:start] + data[start + size :])
        if found is not None and (name, size) != ("png colours", EXIF_BYTES):
            assert np.array_equal(found, whole), start  # in a comment


@pytest.mark.parametrize("name", PNGS)
def test_every_flipped_bit_of_a_png_is_an_error(name: str) -> None:
    for place in range(len(SAMPLES[name])):
        for bit in range(8):
            broken = bytearray(SAMPLES[name])
            broken[place] ^= 1 << bit
            assert read_or_none(bytes(broken)) is None, (place, bit)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("jpeg")])
def test_a_jpeg_that_is_closed_after_any_of_its_bytes_is_an_error(name: str) -> None:
    data = SAMPLES[name]
    for length in range(2, len(data) - 2):
        assert read_or_none(data[:length] + b"\xff\xd9") is None, length


def test_a_progressive_jpeg_without_one_of_its_scans_is_an_error() -> None:
    data = SAMPLES["jpeg progressive"]
    ends = [at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xda", b"\xff\xc4", b"\xff\xd9")]
    scans = [at for at in ends if data[at + 1] == 0xDA]
    assert len(scans) > 5
    for scan in scans:
        end = min(at for at in ends if at > scan)
        refuse(data[:scan] + data[end:], "damaged or cut short")


@pytest.mark.parametrize("name", WEBPS)
def test_a_webp_that_is_shortened_with_the_lengths_in_its_headers_is_an_error(name: str) -> None:
    data = SAMPLES[name]
    whole = read(data)
    for length in range(20, len(data)):
        riff = data[:4] + struct.pack("<I", length - 8) + data[8:length]
        for cut in (riff, riff[:16] + struct.pack("<I", length - 20) + riff[20:]):
            found = read_or_none(cut)
            assert found is None or (length == len(data) - 1 and np.array_equal(found, whole)), length  # its padding


def test_mutated_files_are_images_or_errors_within_bounds() -> None:
    outcome = run(make_all_samples(np.random.default_rng(0)), range(400), seed=1)
    assert not outcome.failures
    assert min(outcome.read.total(), outcome.refused.total()) > 40


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_mutated_files_are_images_or_errors_within_bounds(seed: int) -> None:
    assert not run(make_all_samples(np.random.default_rng(seed)), range(2000), seed).failures

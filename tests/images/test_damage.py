"""Damaged image files are errors, and what a header claims is bounded before anything is decoded."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from ndp_rt.config import ImageLimits
from ndp_rt.errors import ImageFileError
from ndp_rt.images.read import decode_image, read_image
from tests.images.encodings import (
    FORMATS_WITH_CHECKSUMS,
    draw_surface,
    encode,
    encode_pnm,
    encode_tiff,
    encode_with_pillow,
    join_png_chunks,
    list_png_chunks,
    make_tiff,
)
from tests.images.reading import read, refuse

# What is damaged.


@pytest.mark.parametrize("kind", FORMATS_WITH_CHECKSUMS)
def test_every_flipped_bit_of_pixels_is_an_error_where_there_are_checksums(rng: np.random.Generator, kind: str) -> None:
    pixels = draw_surface(rng, 24, 24)
    data = encode(kind, pixels)
    start = data.index(b"IDAT") if kind == "png" else tifffile.TiffFile(io.BytesIO(data)).pages[0].dataoffsets[0]  # type: ignore[union-attr]
    for place in range(start, len(data) - 12):
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        try:
            found = read(bytes(broken))
        except ImageFileError:
            continue
        assert np.array_equal(found, pixels)  # a bit that means nothing, such as zlib's note of its level


def test_a_jpeg_with_a_part_missing_or_an_early_end_is_an_error(rng: np.random.Generator) -> None:
    for kind in ("jpg", "progressive.jpg"):
        for channels in (1, 3):
            data = encode(kind, draw_surface(rng, 128, 128, channels))
            scan = data.index(b"\xff\xda") + 14
            for place in rng.integers(scan, len(data) - 200, 20).tolist():
                refuse(data[:place].removesuffix(b"\xff") + b"\xff\xd9", "damaged or cut short")
                refuse(data[:place] + data[place + 150 :], "damaged or cut short")


def test_a_png_without_one_of_its_chunks_is_an_error(rng: np.random.Generator) -> None:
    chunks = list_png_chunks(cv2.imencode(".png", rng.integers(0, 256, (300, 300), np.uint8))[1].tobytes())
    assert len(chunks) > 5
    for number in range(len(chunks)):
        refuse(join_png_chunks(chunks[:number] + chunks[number + 1 :]), "damaged or cut short")
    raw = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    short = [chunks[0], (b"IDAT", zlib.compress(raw[: len(raw) // 2])), chunks[-1]]
    refuse(join_png_chunks(short), "damaged or cut short")
    refuse(join_png_chunks([chunks[0], *chunks]), "one header chunk")


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", None])
def test_a_tiff_whose_strip_holds_half_its_data_is_an_error(rng: np.random.Generator, compression: str | None) -> None:
    data = bytearray(encode_tiff(draw_surface(rng, 64, 64), compression=compression))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    tag = page.tags["StripByteCounts"]  # type: ignore[union-attr]
    struct.pack_into("<I" if tag.dtype == 4 else "<H", data, tag.valueoffset, tag.value[0] // 2)
    refuse(bytes(data), "damaged or cut short")


def test_a_tiff_without_some_of_its_strips_is_an_error(rng: np.random.Generator) -> None:
    data = bytearray(encode_tiff(draw_surface(rng, 64, 64), rowsperstrip=16))
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0].tags["StripByteCounts"]  # type: ignore[union-attr]
    size = 4 if tag.dtype == 4 else 2
    data[tag.valueoffset + size : tag.valueoffset + 2 * size] = bytes(size)  # a gap, as sparse files have it
    refuse(bytes(data), "expected 4 pieces of the picture, got 3")


def test_jpeg_tables_of_a_tiff_that_are_no_bytes_are_an_error(rng: np.random.Generator) -> None:
    data = bytearray(encode_with_pillow(draw_surface(rng, 16, 16, 3), "TIFF", compression="jpeg"))
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0].tags["JPEGTables"]  # type: ignore[union-attr]
    struct.pack_into("<HI", data, tag.offset + 2, 3, tag.count // 2)  # its bytes read as 16-bit numbers
    refuse(bytes(data), "damaged or cut short: its JPEG tables are no bytes")


@pytest.mark.parametrize(
    ("kind", "words"), [(6, "tag 320 has a negative value"), (8, "tag 320 has a negative value"), (4, "over 65535")]
)
def test_a_palette_of_other_numbers_is_an_error(rng: np.random.Generator, kind: int, words: str) -> None:
    stream = io.BytesIO()
    Pillow.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).convert("P").save(stream, "TIFF")
    data = bytearray(stream.getvalue())
    tag = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0].tags["ColorMap"]  # type: ignore[union-attr]
    struct.pack_into("<HI", data, tag.offset + 2, kind, tag.count)
    data += bytes(4 * tag.count)
    data[tag.valueoffset : tag.valueoffset + tag.count] = b"\xff" * tag.count
    refuse(bytes(data), words)


def test_values_above_the_largest_that_a_pgm_names_are_an_error() -> None:
    refuse(encode_pnm(np.array([[0, 101]]), 100), "its largest value is 101, its header says 100")
    for largest in (0, 70000):
        refuse(b"P5\n2 1\n%d\n" % largest + bytes(4), f"a largest value of {largest}")
    refuse(encode_pnm(np.zeros((4, 4), np.uint8), 255) + b"more", "its header says 16 bytes of pixels, it has 20")


# What is bounded.


def make_png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return join_png_chunks([(b"IHDR", head), (b"IDAT", zlib.compress(bytes(2**21))), (b"IEND", b"")])


def test_a_header_that_claims_more_than_the_file_can_hold_is_refused_before_decoding(rng: np.random.Generator) -> None:
    refuse(make_png_header(16384, 16384), "holds too little for 16384 x 16384 pixels")
    data = bytearray(encode("jpg", draw_surface(rng)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 16384, 16384)
    refuse(bytes(data), "holds too little for 16384 x 16384 pixels")
    refuse(make_tiff(bytes(100), 16384, 16384, {258: 8, 262: 1}), "a piece has 100 bytes")
    packed = zlib.compress(bytes(2**20))
    refuse(make_tiff(packed, 32, 32, {258: 8, 262: 1, 259: 8}), "1024 bytes and more")


def test_images_over_the_limits_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode_with_pillow(np.zeros((4, 5), np.uint8), "PNG"))
    for limits, words in (
        (ImageLimits(max_image_px=19), "up to 16384 pixels a side and 19 in all, got 5 x 4"),
        (ImageLimits(max_side_px=4), "up to 4 pixels a side"),
        (ImageLimits(max_image_bytes=40), "up to 40 bytes"),
    ):
        with pytest.raises(ImageFileError, match=words):
            read_image(path, limits=limits)
    wide = encode_tiff(np.zeros((64, 64, 3), np.uint16), compression="zlib")
    with pytest.raises(ImageFileError, match="pixels of up to 24575 bytes, got 24576"):
        decode_image(wide, name="a.tif", limits=ImageLimits(max_image_bytes=64 * 64 * 6 - 1))


def test_a_jpeg_of_very_many_scans_is_refused(rng: np.random.Generator) -> None:
    data = encode("progressive.jpg", draw_surface(rng))
    last = data.rindex(b"\xff\xda")
    refuse(data[:-2] + 70 * data[last:-2] + b"\xff\xd9", "up to 64 scans")


def test_memory_that_runs_out_costs_one_image(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    data = encode("png", draw_surface(rng))
    monkeypatch.setattr(cv2, "imdecode", fail)
    refuse(data, "enough memory")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes and devices, which Unix has")
def test_pipes_devices_loops_and_sparse_files_end_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with (tmp_path / "sparse.png").open("wb") as stream:
        stream.write(make_png_header(4, 4)[:40])
        stream.truncate(2**40)
    with (tmp_path / "zeros.png").open("wb") as stream:
        stream.truncate(2**40)
    for name, words in (
        ("pipe.png", "expected a file, got a device, a pipe"),
        ("/dev/zero", "expected a file, got a device"),
        ("loop.png", "Give the path"),
        ("sparse.png", "expected up to 1073741824 bytes"),
        ("zeros.png", "expected PNG"),
        (".", "Give the path"),
        ("none.png", "Give the path"),
        ("a\0b.png", "zero byte"),
        ("a\ud800.png", "Give the path"),
        ("x" * 300, "Give the path"),
    ):
        with pytest.raises(ImageFileError, match=words):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, world", "expected PNG, .* got a file that begins b'hello, w'"),
        (b"RIFF\0\0\0\0WAVE", "expected PNG"),
    ],
)
def test_files_that_are_no_images_are_errors(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageFileError, match=words):
        read_image(str(tmp_path / "a.png"))


def test_a_jpeg_with_a_thumbnail_is_whole_only_to_its_own_end(rng: np.random.Generator) -> None:
    data = encode("progressive.jpg", draw_surface(rng, 64, 64))
    thumbnail = b"Exif\0\0" + data  # a whole image inside an APP1 segment
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert read(whole).shape == (64, 64)
    refuse(whole[:-2], "cut short")

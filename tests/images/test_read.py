"""The reader of image files: what files say of their values is read, or they are refused."""

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from ndp_rt.errors import MissingExtraError
from ndp_rt.images.formats.encoded import Damage
from ndp_rt.images.formats.tiff_codecs import unpack_lzw, unpack_lzw_by_numpy
from ndp_rt.images.read import load_image
from tests.images.encodings import (
    LOSSLESS,
    Picture,
    draw_surface,
    encode,
    encode_pnm,
    encode_tiff,
    encode_with_pillow,
    join_png_chunks,
    list_png_chunks,
    make_tiff,
    turn,
)
from tests.images.reading import read, refuse


def assert_same(got: Picture, wanted: Picture) -> None:
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    assert np.array_equal(got, wanted)


# What is read.


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_lossless_format_gives_its_pixels(rng: np.random.Generator, kind: str, channels: int) -> None:
    pixels = draw_surface(rng, 47, 37, channels)
    found = read(encode(kind, pixels))
    assert np.array_equal(found, pixels if found.ndim == pixels.ndim else np.repeat(pixels[..., None], 3, axis=2))
    assert found.ndim == pixels.ndim or kind == "webp"  # which knows no grey


@pytest.mark.parametrize("kind", ["png", "tif", "deflate.tif", "lzw.tif", "pnm"])
def test_16_bits_are_read_as_they_are(rng: np.random.Generator, kind: str) -> None:
    for channels in (1, 3) if kind != "png" else (1,):
        assert_same(read(encode(kind, pixels := draw_surface(rng, 21, 34, channels, 16))), pixels)
    colours = draw_surface(rng, 21, 34, 3, 16)
    assert_same(read(cv2.imencode(".png", colours[..., ::-1])[1].tobytes()), colours)


@pytest.mark.parametrize("quality", [40, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("kind", ["jpg", "progressive.jpg"])
def test_jpeg_gives_the_values_that_opencv_and_pillow_give(
    rng: np.random.Generator, kind: str, subsampling: str, quality: int
) -> None:
    for channels in (1, 3):
        settings = {"subsampling": subsampling} if channels == 3 else {}
        pixels = draw_surface(rng, 61, 45, channels)
        data = encode_with_pillow(pixels, "JPEG", quality=quality, progressive=kind != "jpg", **settings)
        found = read(data)
        assert_same(found, np.asarray(Pillow.open(io.BytesIO(data))))
        plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert_same(found, plain if channels == 1 else plain[..., ::-1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_png_and_bmp_of_every_mode_give_what_pillow_gives(rng: np.random.Generator, kind: str, mode: str) -> None:
    if (kind, mode) == ("BMP", "LA"):
        pytest.skip("BMP has no grey with alpha")
    stream = io.BytesIO()
    Pillow.fromarray(draw_surface(rng, 33, 29, 3)).convert(mode).save(stream, kind)
    wanted = np.asarray(Pillow.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    found = read(stream.getvalue())
    assert np.array_equal(found if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2), wanted)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_palettes_are_looked_up(rng: np.random.Generator, bits: int) -> None:
    image = Pillow.fromarray(draw_surface(rng, 33, 29, 3)).quantize(2**bits)
    wanted = np.asarray(image.convert("RGB"))
    for kind in ("PNG", "BMP"):
        stream = io.BytesIO()
        image.save(stream, kind, **({"bits": bits} if kind == "PNG" else {}))
        found = read(stream.getvalue())
        assert np.array_equal(found if found.ndim == 3 else np.repeat(found[..., None], 3, axis=2), wanted)


def test_a_bmp_without_its_file_header_is_read(rng: np.random.Generator) -> None:
    pixels = draw_surface(rng, 20, 31, 3)
    assert_same(read(encode("bmp", pixels)[14:]), pixels)
    assert_same(read(encode("bmp", pixels[..., 0])[14:]), pixels[..., 0])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_tiff_of_every_layout_gives_its_pixels(
    rng: np.random.Generator, compression: str | None, order: str, is_big: bool
) -> None:
    for bits in (8, 16):
        for channels in (1, 3):
            pixels = draw_surface(rng, 61, 47, channels, bits)
            for layout in ({}, {"tile": (16, 32)}, {"rowsperstrip": 7}):
                for planar in ("contig", "separate") if channels == 3 else ("contig",):
                    for predictor in (False, True) if compression in ("zlib", "lzw") else (False,):
                        stored = np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels
                        given = {"planarconfig": planar} if channels == 3 else {}
                        kind = {"photometric": "rgb" if channels == 3 else "minisblack", "predictor": predictor}
                        ends = {"byteorder": order, "bigtiff": is_big, "compression": compression}
                        assert_same(read(encode_tiff(stored, **kind, **ends, **layout, **given)), pixels)


def test_white_is_zero_is_turned_round(rng: np.random.Generator) -> None:
    for bits in (8, 16):
        pixels = draw_surface(rng, bits=bits)
        assert_same(read(encode_tiff(2**bits - 1 - pixels, photometric="miniswhite")), pixels)


def test_alpha_is_dropped_and_never_multiplied_in(rng: np.random.Generator) -> None:
    colours, alpha = draw_surface(rng, channels=3), draw_surface(rng)[..., None] // 2
    stored = np.concatenate([colours, alpha], axis=2)
    assert_same(read(encode_tiff(stored, extrasamples=["unassalpha"])), colours)
    assert_same(read(encode_tiff(stored, extrasamples=["unspecified"])), colours)
    assert_same(read(encode_with_pillow(stored, "PNG")), colours)
    refuse(encode_tiff(stored, extrasamples=["assocalpha"]), "alpha is multiplied in")
    stored[..., 3] = 255
    assert_same(read(encode_tiff(stored, extrasamples=["assocalpha"])), colours)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_tiff_as_libtiff_writes_it_gives_what_pillow_gives(rng: np.random.Generator, compression: str) -> None:
    for channels in (1, 3):
        data = encode_with_pillow(draw_surface(rng, 61, 47, channels), "TIFF", compression=compression)
        assert_same(read(data), np.asarray(Pillow.open(io.BytesIO(data))))


def test_lzw_by_opencv_is_lzw_by_numpy_whatever_the_size_and_the_damage(rng: np.random.Generator) -> None:
    def unpack(function: Callable[[bytes, int], bytes], data: bytes, size_bytes: int) -> bytes | None:
        try:
            return function(data, size_bytes)
        except Damage:
            return None

    for number in range(80):
        size_bytes = int(rng.integers(1, 6000))
        content = rng.integers(0, (2, 16, 256)[number % 3], size_bytes, np.uint8).tobytes()
        packed = imagecodecs.lzw_encode(content)
        assert unpack_lzw(packed, size_bytes) == unpack_lzw_by_numpy(packed, size_bytes) == content
        flipped = bytearray(packed)
        flipped[int(rng.integers(2, len(packed)))] ^= 1 << int(rng.integers(8))  # libtiff knows two beginnings
        for damaged in (packed[: int(rng.integers(2, len(packed)))], bytes(flipped)):
            assert unpack(unpack_lzw, damaged, size_bytes) == unpack(unpack_lzw_by_numpy, damaged, size_bytes)
        assert unpack(unpack_lzw, packed, size_bytes + 2) is None


def test_lzw_is_unpacked_over_many_tables(rng: np.random.Generator) -> None:
    noise = rng.integers(0, 256, (301, 257), dtype=np.uint8)
    for pixels in (noise, noise // 128, np.zeros_like(noise), np.tile(noise[:1], (301, 1))):
        assert_same(read(encode_with_pillow(pixels, "TIFF", compression="tiff_lzw")), pixels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_tiff_of_few_bits_fills_the_whole_range(bits: int) -> None:
    values = np.arange(48 * 33).reshape(48, 33) % 2**bits
    packed = np.zeros((48, -(-33 * bits // 8) * 8), np.uint8)
    for index in range(bits):
        packed[:, index : 33 * bits : bits] = (values >> (bits - 1 - index)) & 1
    data = make_tiff(np.packbits(packed, axis=1).tobytes(), 33, 48, {258: bits, 262: 1})
    assert_same(read(data), np.rint(values * 255 / (2**bits - 1)).astype(np.uint8))


@pytest.mark.parametrize("largest", [1, 15, 100, 254, 255, 256, 1023, 4095, 65535])
def test_pgm_reads_its_largest_value_as_white(rng: np.random.Generator, largest: int) -> None:
    values = rng.integers(0, largest + 1, (21, 17))
    whole = 255 if largest < 256 else 65535
    wanted = np.rint(values * whole / largest).astype(np.uint8 if largest < 256 else np.uint16)
    assert_same(read(encode_pnm(values, largest)), wanted)
    if 255 < largest < 65535:  # for a bundle of that white level the values are right as they are
        assert_same(read(encode_pnm(values, largest), white_level=largest), values.astype(np.uint16))


def test_packed_12_bits_are_read_as_pgm_of_12_bits_is(rng: np.random.Generator) -> None:
    values = rng.integers(0, 4096, (6, 8))
    pairs = (values[:, ::2] << 12 | values[:, 1::2]).astype(">u4")
    packed = pairs.tobytes()
    content = b"".join(packed[at + 1 : at + 4] for at in range(0, len(packed), 4))
    data = make_tiff(content, 8, 6, {258: 12, 262: 1})
    assert_same(read(data), np.rint(values * 65535 / 4095).astype(np.uint16))
    assert_same(read(data, white_level=4095), values.astype(np.uint16))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_a_turned_picture_is_read_upright_in_every_format(
    rng: np.random.Generator, kind: str, orientation: int, tmp_path: Path
) -> None:
    pixels = draw_surface(rng, 48, 32, 3)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    settings = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 100, "subsampling": "4:4:4"}}
    data = encode_with_pillow(turn(pixels, orientation), kind, exif=exif, **settings[kind])
    found = read(data)
    assert found.shape == pixels.shape and found.flags.c_contiguous
    assert np.abs(found.astype(int) - pixels).max() <= (8 if kind == "JPEG" else 0)
    (tmp_path / "turned").write_bytes(data)
    assert load_image(tmp_path / "turned").orientation == orientation


def test_what_a_png_says_of_colours_and_texts_changes_no_pixel(rng: np.random.Generator) -> None:
    pixels = draw_surface(rng)
    head, *rest = list_png_chunks(encode("png", pixels))
    extra = [(b"gAMA", struct.pack(">I", 100000)), (b"sBIT", b"\x04"), (b"tEXt", b"a\0b")]
    assert_same(read(join_png_chunks([head, *extra, *rest])), pixels)


# What is refused.


def test_a_thumbnail_is_never_read_for_the_picture(rng: np.random.Generator) -> None:
    pixels, stream = draw_surface(rng, 64, 64), io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(pixels[::4, ::4], subfiletype=1)
        writer.write(pixels)
        writer.write(pixels[::2, ::2], subfiletype=1)
    assert_same(read(stream.getvalue()), pixels)
    alone = io.BytesIO()
    tifffile.imwrite(alone, pixels[::4, ::4], subfiletype=1)
    refuse(alone.getvalue(), "thumbnails or masks alone")
    hidden = io.BytesIO()
    with tifffile.TiffWriter(hidden) as writer:  # as raw files of cameras have it
        writer.write(pixels[::4, ::4], subfiletype=1, subifds=1)
        writer.write(pixels)
    assert_same(read(hidden.getvalue()), pixels)


@pytest.mark.parametrize(
    ("kind", "words"), [("GIF", "GIF"), ("JPEG2000", "JPEG 2000"), ("AVIF", "AVIF"), ("ICO", "icon")]
)
def test_other_kinds_of_images_are_refused_by_name(rng: np.random.Generator, kind: str, words: str) -> None:
    refuse(encode_with_pillow(draw_surface(rng, 32, 32, 3), kind), f"expected PNG, .* got {words}. Convert it")


def test_what_their_own_encoders_write_is_refused_by_name(rng: np.random.Generator) -> None:
    grey, deep = draw_surface(rng, 32, 32), draw_surface(rng, 32, 32, bits=16)
    refuse(imagecodecs.jpegls_encode(grey), "got JPEG-LS. Save it as PNG or TIFF")
    refuse(imagecodecs.ljpeg_encode(deep), "got a lossless JPEG. Save it as PNG or TIFF")
    refuse(imagecodecs.jpeg_encode(deep >> 4, bitspersample=12), "a JPEG of 8 bits, got one of 12")
    for data, name in (
        (imagecodecs.jpegxr_encode(grey), "JPEG XR"),
        (imagecodecs.jpegxl_encode(grey), "JPEG XL"),
        (imagecodecs.qoi_encode(np.dstack([grey, grey, grey])), "QOI"),
        (imagecodecs.rgbe_encode(draw_surface(rng, 32, 32, 3).astype(np.float32)), "Radiance HDR"),
    ):
        refuse(data, f"expected PNG, .* got {name}. Convert it to PNG or TIFF")
    colours = draw_surface(rng, 32, 32, 3)
    for compression, name in {"zstd": "Zstandard", "lzma": "LZMA", "lerc": "LERC", "webp": "WebP"}.items():
        packed = encode_tiff(colours, photometric="rgb", compression=compression)
        refuse(packed, f"got {name}. Save it with one of them")


def test_what_is_not_decoded_is_refused_for_the_true_reason(rng: np.random.Generator) -> None:
    grey, colours = draw_surface(rng), draw_surface(rng, channels=3)
    refuse(encode_tiff(grey.astype(np.float32)), "got floating point numbers")
    refuse(encode_tiff(grey.astype(np.int16)), "got signed numbers")
    refuse(encode_tiff(grey.astype(np.uint32)), "1 to 16 bits a value, got 32")
    for compression, name in ((50000, "Zstandard"), (34712, "JPEG 2000"), (4, "fax"), (60001, "compression 60001")):
        refuse(make_tiff(grey.tobytes(), 40, 48, {258: 8, 262: 1, 259: compression}), name)
    refuse(make_tiff(grey.tobytes(), 40, 48, {258: 8, 262: 32803}), "a sensor's raw values")
    refuse(encode_with_pillow(np.dstack([colours, grey]), "PNG")[:20], "cut short")
    stream = io.BytesIO()
    Pillow.fromarray(colours).convert("CMYK").save(stream, "JPEG")
    refuse(stream.getvalue(), "JPEG of 4 channels")
    data = bytearray(encode("jpg", grey))
    frame = data.index(b"\xff\xc0")
    data[frame + 4] = 12
    refuse(bytes(data), "JPEG of 8 bits, got one of 12")
    data[frame + 1], data[frame + 4] = 0xC3, 8
    refuse(bytes(data), "a lossless JPEG")
    kinds = {0xC9: "in arithmetic coding", 0xC5: "a hierarchical JPEG", 0xCB: "a lossless JPEG", 0xF7: "JPEG-LS"}
    for marker, name in kinds.items():
        data[frame + 1] = marker
        refuse(bytes(data), f"expected a baseline or progressive JPEG, got .*{name}. Save it as PNG or TIFF")
    data[frame + 1] = 0xC0
    for marker, name in {0xCC: "in arithmetic coding", 0xDE: "a hierarchical JPEG", 0xDC: "tells its height"}.items():
        refuse(bytes(data[:2]) + bytes([0xFF, marker, 0, 4, 0, 0]) + bytes(data[2:]), name)
    packed = bytearray(encode("bmp", grey))
    packed[30] = 1
    refuse(bytes(packed), "RLE8")


def test_a_jpeg_where_its_decoder_is_missing_says_how_to_get_it(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(MissingExtraError, match="reading JPEG files needs the package simplejpeg, .* pip install"):
        read(encode("jpg", draw_surface(rng)))

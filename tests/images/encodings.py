"""Image files for the tests of the reader, made in memory: of every format, whole, and damaged in known ways."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

Picture = np.ndarray[Any, np.dtype[Any]]

TIFFS = {"tif": None, "deflate.tif": "zlib", "lzw.tif": "lzw", "packbits.tif": "packbits"}
FORMATS = ("png", "jpg", "progressive.jpg", "bmp", "webp", "lossy.webp", "pnm", *TIFFS)
FORMATS_WITH_CHECKSUMS = ("png", "deflate.tif")
LOSSLESS = tuple(name for name in FORMATS if name not in ("jpg", "progressive.jpg", "lossy.webp"))


def draw_surface(
    rng: np.random.Generator, height: int = 48, width: int = 40, channels: int = 1, bits: int = 8
) -> Picture:
    """Return a smooth surface with grain: [h, w] or [h, w, 3], uint8 or uint16 of `bits`."""
    noise = rng.normal(size=(height, width, channels)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).reshape(height, width, channels)
    values = np.clip(0.5 + 1.5 * smooth + 0.02 * noise, 0, 1) * (2**bits - 1)
    pixels = np.rint(values).astype(np.uint8 if bits <= 8 else np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


def encode(kind: str, pixels: Picture) -> bytes:
    """Return an image file of one of FORMATS."""
    if kind in TIFFS:
        return encode_tiff(pixels, compression=TIFFS[kind], rowsperstrip=16)
    if kind == "pnm":
        return encode_pnm(pixels, 255 if pixels.dtype == np.uint8 else 65535)
    settings: dict[str, Any] = {"progressive.jpg": {"progressive": True}, "webp": {"lossless": True}}.get(kind, {})
    name = {"jpg": "JPEG", "progressive.jpg": "JPEG", "lossy.webp": "WEBP"}.get(kind, kind.upper())
    return encode_with_pillow(pixels, name, **settings)


def encode_with_pillow(pixels: Picture, name: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, name, **settings)
    return stream.getvalue()


def encode_pages(pages: Sequence[Picture], name: str, **settings: Any) -> bytes:
    """Return a file of several pictures, as Pillow writes it."""
    stream = io.BytesIO()
    first, *rest = map(Pillow.fromarray, pages)
    first.save(stream, name, save_all=True, append_images=rest, **settings)
    return stream.getvalue()


def encode_tiff(pixels: Picture, **settings: Any) -> bytes:
    if settings.get("compression") in ("lzw", "packbits"):
        pytest.importorskip("imagecodecs")
    stream = io.BytesIO()
    kind = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(stream, pixels, **{"photometric": kind, "metadata": None, **settings})
    return stream.getvalue()


def encode_pnm(pixels: Picture, largest: int) -> bytes:
    height, width = pixels.shape[:2]
    values = pixels.astype(np.uint8 if largest < 256 else ">u2").tobytes()
    return b"P%d\n# made for a test\n%d %d\n%d\n" % (5 if pixels.ndim == 2 else 6, width, height, largest) + values


def list_png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def join_png_chunks(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    pieces = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def turn(pixels: Picture, orientation: int) -> Picture:
    """Return what is stored so that EXIF's `orientation` shows `pixels`, by the table of Exif 2.32, 4.6.4."""
    stored = {
        1: pixels,
        2: np.fliplr(pixels),
        3: np.rot90(pixels, 2),
        4: np.flipud(pixels),
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }
    return np.ascontiguousarray(stored[orientation])


def make_tiff(content: bytes, width: int, height: int, tags: dict[int, int]) -> bytes:
    """Return a TIFF of one strip with the given tags of one SHORT each."""
    entries = {256: width, 257: height, 259: 1, 277: 1, 278: height, **tags}
    offset = 8 + 2 + 12 * (len(entries) + 2) + 4
    rows = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries.items()]
    rows += [struct.pack("<HHII", 273, 4, 1, offset), struct.pack("<HHII", 279, 4, 1, len(content))]
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(sorted(rows)) + bytes(4) + content

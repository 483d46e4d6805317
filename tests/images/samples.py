"""One small image file of every kind that the reader takes, for the tests of damage."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image as Pillow

from tests.images.encodings import (
    Picture,
    draw_surface,
    encode_pages,
    encode_pnm,
    encode_tiff,
    encode_with_pillow,
    join_png_chunks,
    list_png_chunks,
    make_tiff,
)

HEIGHT, WIDTH = 16, 12  # even, so that no format pads its last byte


def make_samples(rng: np.random.Generator) -> dict[str, bytes]:
    """Return a file of each kind by name; the part of the name before the first space is the format."""
    grey, colours = draw_surface(rng, HEIGHT, WIDTH), draw_surface(rng, HEIGHT, WIDTH, 3)
    deep, deep_colours = draw_surface(rng, HEIGHT, WIDTH, bits=16), draw_surface(rng, HEIGHT, WIDTH, 3, 16)
    alpha = np.dstack([colours, grey])
    return (
        _make_pngs(grey, colours, deep, alpha)
        | _make_jpegs(grey, colours)
        | _make_bmps(grey, colours)
        | _make_tiffs(grey, colours, deep, deep_colours, alpha)
        | _make_webps(grey, colours, alpha)
        | {"pgm": encode_pnm(grey, 255), "ppm": encode_pnm(colours, 255), "pgm 12 bits": encode_pnm(deep >> 4, 4095)}
    )


def make_paged_samples(rng: np.random.Generator) -> dict[str, bytes]:
    """Return a file of two pages of each format that may have several; animations have frames that are parts."""
    first, second = draw_surface(rng, HEIGHT, WIDTH, 3), draw_surface(rng, HEIGHT, WIDTH, 3)
    changed = first.copy()
    changed[4:10, 2:8] = 255 - changed[4:10, 2:8]
    grey = second[..., 0].copy()
    return {
        "png animated": encode_pages([first, changed], "PNG", disposal=0, blend=1),
        "webp animated": encode_pages([first, changed], "WEBP", lossless=True),
        "jpeg pages": encode_pages([first, second], "MPO"),
        "jpeg following": encode_with_pillow(first, "JPEG") + encode_with_pillow(second, "JPEG"),
        "tiff pages": encode_tiff(np.stack([first, second]), photometric="rgb", compression="lzw"),
        "ppm pages": encode_pnm(first, 255) + b"\n" + encode_pnm(grey, 255),
    }


def make_all_samples(rng: np.random.Generator) -> dict[str, bytes]:
    """Return what `make_samples` does and files of several pages."""
    return make_samples(rng) | make_paged_samples(rng)


def _make_pngs(grey: Picture, colours: Picture, deep: Picture, alpha: Picture) -> dict[str, bytes]:
    palette = Pillow.fromarray(colours).quantize(16)
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=3)
    clear = io.BytesIO()
    Pillow.fromarray(grey).save(clear, "PNG", transparency=int(grey[0, 0]))
    head, *rest = list_png_chunks(encode_with_pillow(colours, "PNG", exif=_make_exif(6)))
    extra = [(b"gAMA", struct.pack(">I", 45455)), (b"sBIT", b"\5\6\5"), (b"tEXt", b"Comment\0a test")]
    return {
        "png grey": encode_with_pillow(grey, "PNG"),
        "png grey transparent": clear.getvalue(),
        "png bits": encode_with_pillow(grey > 128, "PNG"),
        "png colours": join_png_chunks([head, *extra, *rest]),
        "png palette": stream.getvalue(),
        "png 16 bits": encode_with_pillow(deep, "PNG"),
        "png alpha": encode_with_pillow(alpha, "PNG"),
        "png grey alpha": encode_with_pillow(alpha[..., 2:], "PNG"),
    }


def _make_jpegs(grey: Picture, colours: Picture) -> dict[str, bytes]:
    return {
        "jpeg grey": encode_with_pillow(grey, "JPEG"),
        "jpeg 4:4:4": encode_with_pillow(colours, "JPEG", subsampling="4:4:4", restart_marker_blocks=2),
        "jpeg 4:2:0": encode_with_pillow(colours, "JPEG", subsampling="4:2:0", exif=_make_exif(8)),
        "jpeg progressive": encode_with_pillow(colours, "JPEG", progressive=True),
    }


def _make_bmps(grey: Picture, colours: Picture) -> dict[str, bytes]:
    palette = io.BytesIO()
    Pillow.fromarray(colours).quantize(16).save(palette, "BMP")
    return {
        "bmp grey": encode_with_pillow(grey, "BMP"),
        "bmp palette": palette.getvalue(),
        "bmp bits": encode_with_pillow(grey > 128, "BMP"),
        "bmp colours": encode_with_pillow(colours, "BMP"),
        "dib": encode_with_pillow(colours, "DIB"),
    }


def _make_tiffs(
    grey: Picture, colours: Picture, deep: Picture, deep_colours: Picture, alpha: Picture
) -> dict[str, bytes]:
    planes = np.moveaxis(deep_colours, 2, 0)
    packed = {"predictor": True, "rowsperstrip": 6}
    palette = io.BytesIO()
    Pillow.fromarray(colours).quantize(16).save(palette, "TIFF")
    return {
        "tiff grey": encode_tiff(grey, rowsperstrip=6),
        "tiff 16 bits": encode_tiff(deep, byteorder=">", rowsperstrip=6),
        "tiff planes": encode_tiff(planes, planarconfig="separate", photometric="rgb", compression="zlib"),
        "tiff deflate": encode_tiff(colours, compression="zlib", **packed),
        "tiff lzw": encode_with_pillow(colours, "TIFF", compression="tiff_lzw"),
        "tiff lzw predictor": encode_tiff(deep, compression="lzw", **packed),
        "tiff packbits": encode_with_pillow(grey // 32, "TIFF", compression="packbits"),
        "tiff jpeg": encode_with_pillow(colours, "TIFF", compression="jpeg"),
        "tiff tiles": encode_tiff(grey, tile=(16, 16), compression="zlib"),
        "tiff alpha": encode_tiff(alpha, extrasamples=["unassalpha"]),
        "tiff palette": palette.getvalue(),
        "tiff 4 bits": make_tiff(bytes(range(96)), WIDTH, HEIGHT, {258: 4, 262: 0}),
        "tiff 12 bits": make_tiff(bytes(range(144)) * 2, WIDTH, HEIGHT, {258: 12, 262: 1}),
        "bigtiff": encode_tiff(colours, bigtiff=True, compression="zlib"),
    }


def _make_webps(grey: Picture, colours: Picture, alpha: Picture) -> dict[str, bytes]:
    return {
        "webp": encode_with_pillow(colours, "WEBP"),
        "webp lossless": encode_with_pillow(colours, "WEBP", lossless=True),
        "webp alpha": encode_with_pillow(alpha, "WEBP", exif=_make_exif(3)),
        "webp lossless alpha": encode_with_pillow(alpha, "WEBP", lossless=True),
    }


def _make_exif(orientation: int) -> Any:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return exif

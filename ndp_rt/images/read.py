"""Reads image files: one reader for every command, for images and masks alike.

What a file says of its values is read, or the file is refused: its bits, its white, its orientation, its pages. What is
decoded is bounded in bytes before anything is allocated, and damage is an error.
"""

import contextlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt.config import ImageLimits
from ndp_rt.errors import ImageFileError
from ndp_rt.images.checks import Image
from ndp_rt.images.formats import bmp, jpeg, png, pnm, tiff, webp
from ndp_rt.images.formats.encoded import AGAIN, Canvas, Damage, Encoded, Refusal, SeveralPages
from ndp_rt.images.page_names import split_page

SNIFFED_BYTES = 32
KINDS = "PNG, JPEG, BMP, TIFF, WebP, PGM or PPM"
ReadHeader = Callable[[bytes, int | None], Encoded]
_READERS: tuple[tuple[str, tuple[bytes, ...], ReadHeader], ...] = (
    ("PNG", (png.SIGNATURE,), png.read_header),
    ("JPEG", (jpeg.SIGNATURE,), jpeg.read_header),
    ("BMP", (bmp.SIGNATURE,), bmp.read_header),
    ("TIFF", tiff.SIGNATURES, tiff.read_header),
    ("PGM", (pnm.GREY,), pnm.read_header),
    ("PPM", (pnm.COLOUR,), pnm.read_header),
)
# Images that are known by their first bytes and not decoded. Those of the ISO family have their kind from byte 4 on.
_OTHERS = {
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"qoif": "QOI",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"P1": "PBM in text",
    b"P2": "PGM in text",
    b"P3": "PPM in text",
    b"P4": "PBM",
    b"P7": "PAM",
    b"Pf": "PFM",
    b"PF": "PFM",
    b"\0\0\1\0": "icon",
    b"SIMPLE  =": "FITS",
    b"\x93NUMPY": "NumPy array",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
_ISO_KIND = b"ftyp"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFile:
    """A decoded image file.

    Attributes:
        pixels: uint8 or uint16, [h, w] or RGB [h, w, 3], upright; with alpha, where it is kept, [h, w, 2] or [h, w, 4].
        orientation: 1 to 8, as EXIF counts them: how the stored picture was turned to become `pixels`.
        significant_bits: of 16-bit values, where the file notes them; None: it says nothing, or scales by them.
        page_count: pictures in the file, of which this is one.
    """

    pixels: Image
    orientation: int
    significant_bits: int | None
    page_count: int = 1


def read_image(
    path: str | Path, *, limits: ImageLimits | None = None, white_level: int = 65535, page: int | None = None
) -> Image:
    """Read an image file: uint8 or uint16, [h, w] or RGB [h, w, 3], upright.

    Formats: PNG, JPEG, BMP, TIFF (with BigTIFF), WebP, PGM and PPM. Alpha is dropped. A picture that its file says to
    turn (EXIF, TIFF) is turned, in every format, so that what is found lies where viewers show it.

    Args:
        path: a regular file, or one of its pages: "scan.tif[2]" is the second page of scan.tif.
        limits: of what is decoded; None: ImageLimits().
        white_level: what the largest value becomes where the file declares one of 9 to 15 bits (PGM and PPM, TIFF): the
            white level of the bundle that the image is for.
        page: which picture of a file with several (TIFF, MPO, animated PNG and WebP, PGM and PPM), counted from 1;
            None: the only one.

    Raises:
        ImageFileError: missing, empty, damaged, of another type, with several pages and none chosen, or larger than
            `limits`.

    Examples:
        >>> from ndp_rt import read_image
        >>> image = read_image("new/piece.png")
        >>> image.dtype.name, image.ndim
        ('uint8', 3)
    """
    return load_image(path, limits=limits, white_level=white_level, page=page).pixels


def load_image(
    path: str | Path,
    *,
    limits: ImageLimits | None = None,
    white_level: int = 65535,
    keeps_alpha: bool = False,
    page: int | None = None,
) -> ImageFile:
    """Read an image file as `read_image` does, with what it says of itself and, if wanted, with its alpha channel."""
    limits = limits or ImageLimits()
    file, named = split_page(path)
    data = read_bytes(file, limits)
    return _decode(data, str(path), limits, white_level, named if page is None else page, keeps_alpha)


def decode_image(
    data: bytes,
    *,
    name: str,
    limits: ImageLimits | None = None,
    white_level: int = 65535,
    page: int | None = None,
    canvas: Canvas | None = None,
) -> Image:
    """Decode an image file's bytes as `read_image` does.

    Args:
        data: the file.
        name: appears in the errors.
        limits: as there.
        white_level: as there.
        page: as there.
        canvas: for the next page of these very bytes; None: it is not kept.
    """
    return _decode(data, name, limits or ImageLimits(), white_level, page, canvas=canvas).pixels


def count_pages(path: str | Path, *, limits: ImageLimits | None = None) -> int:
    """Return how many pictures a file has, also where some of several cannot be read.

    Raises:
        ImageFileError: as `read_image`; the pictures themselves are not decoded.
    """
    data = read_bytes(path, limits or ImageLimits())
    with _naming(str(path)):
        try:
            return _read_header(data, None).page_count
        except SeveralPages as error:
            return error.count


def sniff_kind(head: bytes) -> str | None:
    """Return the kind of image that a file's first SNIFFED_BYTES say, also one that is not decoded; None: no image."""
    for kind, signatures, _ in _READERS:
        if head.startswith(signatures):
            return kind
    if webp.is_webp(head):
        return "WebP"
    if bmp.is_dib(head):
        return "DIB"
    if head[4:8] == _ISO_KIND and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    return next((kind for signature, kind in _OTHERS.items() if head.startswith(signature)), None)


def find_reader(data: bytes) -> tuple[str, ReadHeader]:
    """Return the kind of an image file, and what reads its header, given the page or None.

    Raises:
        Refusal: it is empty, or of a kind that is not decoded.
    """
    if not data:
        raise Refusal(f"is empty (0 bytes). {AGAIN}")
    for kind, signatures, read in _READERS:
        if data.startswith(signatures):
            return kind, read
    if webp.is_webp(data):
        return "WebP", webp.read_header
    if bmp.is_dib(data):
        return "DIB", bmp.read_header
    kind = sniff_kind(data[:SNIFFED_BYTES]) or f"a file that begins {data[:8]!r}"
    raise Refusal(f"expected {KINDS}, got {kind}. Convert it to PNG or TIFF.")


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn what reading a file raises into an ImageFileError with its name."""
    try:
        yield
    except Refusal as error:
        raise ImageFileError(f"{name}: {error}") from error
    except MemoryError as error:
        raise ImageFileError(f"{name}: expected enough memory to decode it, got none. Close other programs.") from error
    except (OSError, UnicodeError) as error:
        raise ImageFileError(
            f"{name}: {getattr(error, 'strerror', None) or error}. Give the path of a readable image file."
        ) from error


def read_bytes(path: str | Path, limits: ImageLimits) -> bytes:
    """Return a regular file's content; a pipe or a device never blocks, and what is no image is not read whole.

    Raises:
        ImageFileError: it is missing, no image, or larger than `limits`.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with _naming(str(path)):
        if "\0" in str(path):
            raise Refusal("expected a file name, got one with a zero byte.")
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb", closefd=True) as stream:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise Refusal("expected a file, got a device, a pipe or a folder. Give the path of an image file.")
            find_reader(stream.read(SNIFFED_BYTES))
            if state.st_size > limits.max_image_bytes:
                raise Refusal(
                    f"expected up to {limits.max_image_bytes} bytes, got {state.st_size}. Cut it into smaller images, "
                    "or raise the limits."
                )
            stream.seek(0)
            return stream.read(state.st_size)


def _read_header(data: bytes, page: int | None) -> Encoded:
    kind, read = find_reader(data)
    try:
        return read(data, page)
    except (struct.error, IndexError, OverflowError) as error:
        raise Damage(f"its {kind} header ends early or points outside the file ({len(data)} bytes)") from error


def _decode(
    data: bytes,
    name: str,
    limits: ImageLimits,
    white_level: int,
    page: int | None,
    keeps_alpha: bool = False,
    canvas: Canvas | None = None,
) -> ImageFile:
    with _naming(name):
        encoded = _read_header(data, page)
        _check_size(encoded, limits)
        if canvas is None or encoded.decode_frame is None:
            pixels = encoded.decode(keeps_alpha)
        else:
            pixels = encoded.decode_frame(keeps_alpha, canvas)
        if pixels.shape[:2] != (encoded.height_px, encoded.width_px):
            height, width = pixels.shape[:2]
            raise Damage(f"its header says {encoded.width_px} x {encoded.height_px} pixels, it has {width} x {height}")
        if pixels.dtype == np.uint16 and white_level != encoded.white != 65535:
            pixels = _scale(pixels, encoded.white, white_level)
        turned = np.ascontiguousarray(turn_upright(pixels, encoded.orientation))
    return ImageFile(
        pixels=turned,
        orientation=encoded.orientation,
        significant_bits=encoded.significant_bits,
        page_count=encoded.page_count,
    )


def _check_size(encoded: Encoded, limits: ImageLimits) -> None:
    height, width = encoded.height_px, encoded.width_px
    if max(height, width) > limits.max_side_px or height * width > limits.max_image_px:
        raise Refusal(
            f"expected up to {limits.max_side_px} pixels a side and {limits.max_image_px} in all, got {width} x "
            f"{height}. Cut it into smaller images, or raise the limits."
        )
    if encoded.decoded_bytes > limits.max_image_bytes:
        raise Refusal(
            f"expected pixels of up to {limits.max_image_bytes} bytes, got {encoded.decoded_bytes} ({width} x {height} "
            "pixels). Cut it into smaller images, or raise the limits."
        )


def _scale(pixels: Image, white: int, white_level: int) -> Image:
    """Return uint16 values whose white becomes another."""
    table = np.rint(np.arange(white + 1) * white_level / white).astype(np.uint16)
    scaled: Image = table[pixels]
    return scaled


def turn_upright(stored: Image, orientation: int) -> Image:
    """Return a view of a stored picture as it is to be seen; `orientation` as EXIF counts, 1 to 8."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned

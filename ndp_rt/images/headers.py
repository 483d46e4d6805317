"""Reads an image's size from its file's header, before a decoder allocates for it, and finds files that are cut short.

OpenCV allocates gigabytes for a header of 30,000 x 30,000 and fills the missing part of a file with grey. It has no
function that tells either beforehand.
"""

import struct
from collections.abc import Callable

from ndp_rt.errors import ImageFileError

Size = tuple[int, int]  # width, height

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_END = b"\xff\xd9"
# SOF0 to SOF15 without DHT, JPG and DAC, which share the range.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
TIFF_WIDTH, TIFF_HEIGHT = 256, 257


def _scan_jpeg(data: bytes) -> tuple[Size, int]:
    """Return size and the offset where the coded data begins (len(data) if it never does)."""
    size, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + length
        if marker == 0xDA:
            break
    else:
        at = len(data)
    if size is None:
        raise struct.error("no frame header")
    return size, at


def _size_of_png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _size_of_jpeg(data: bytes) -> Size:
    return _scan_jpeg(data)[0]


def _size_of_bmp(data: bytes) -> Size:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows from the top


def _size_of_tiff(data: bytes) -> Size:
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, first)
    found = {}
    for index in range(count):
        tag, kind = struct.unpack_from(order + "HH", data, first + 2 + 12 * index)
        if tag in (TIFF_WIDTH, TIFF_HEIGHT):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, first + 10 + 12 * index)
    if len(found) < 2:
        raise struct.error("no size in the first directory")
    return found[TIFF_WIDTH], found[TIFF_HEIGHT]


def _size_of_webp(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _pnm_fields(data: bytes) -> tuple[list[int], int]:
    """Return width, height and largest value of a P5/P6 header, and where the pixels begin."""
    fields: list[int] = []
    at = 2
    while len(fields) < 3:
        while data[at : at + 1].isspace():
            at += 1
        if data[at : at + 1] == b"#":
            at = data.index(b"\n", at)
            continue
        end = at
        while data[end : end + 1].isdigit():
            end += 1
        fields.append(int(data[at:end]))
        at = end
    return fields, at + 1


def _size_of_pnm(data: bytes) -> Size:
    (width, height, _), _ = _pnm_fields(data)
    return width, height


def _is_whole_png(data: bytes) -> bool:
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + length
    return False


def _is_whole_jpeg(data: bytes) -> bool:
    # After the scan header 0xFF is always stuffed, so an end marker found there is the image's, not a thumbnail's.
    return data.find(JPEG_END, _scan_jpeg(data)[1]) >= 0


def _is_whole_bmp(data: bytes) -> bool:
    (pixels_at,) = struct.unpack_from("<I", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28) if data[14] != 12 else (data[24], 0)
    width, height = _size_of_bmp(data)
    row_bytes = (width * bits + 31) // 32 * 4
    return bool(len(data) > pixels_at if compression in (1, 2) else len(data) >= pixels_at + row_bytes * height)


def _is_whole_riff(data: bytes) -> bool:
    return len(data) >= 8 + int.from_bytes(data[4:8], "little")


def _is_whole_pnm(data: bytes) -> bool:
    (width, height, largest), at = _pnm_fields(data)
    value_bytes = (3 if data[1:2] == b"6" else 1) * (1 if largest < 256 else 2)
    return len(data) >= at + width * height * value_bytes


def _is_whole_tiff(data: bytes) -> bool:
    return True  # libtiff itself refuses a strip or tile that ends early


_FORMATS: tuple[tuple[bytes, str, Callable[[bytes], Size], Callable[[bytes], bool]], ...] = (
    (PNG_SIGNATURE, "PNG", _size_of_png, _is_whole_png),
    (b"\xff\xd8\xff", "JPEG", _size_of_jpeg, _is_whole_jpeg),
    (b"BM", "BMP", _size_of_bmp, _is_whole_bmp),
    (b"II*\0", "TIFF", _size_of_tiff, _is_whole_tiff),
    (b"MM\0*", "TIFF", _size_of_tiff, _is_whole_tiff),
    (b"RIFF", "WebP", _size_of_webp, _is_whole_riff),
    (b"P5", "PGM", _size_of_pnm, _is_whole_pnm),
    (b"P6", "PPM", _size_of_pnm, _is_whole_pnm),
)


def _find_format(data: bytes, name: str) -> tuple[str, Callable[[bytes], Size], Callable[[bytes], bool]]:
    if not data:
        raise ImageFileError(f"{name}: is empty (0 bytes). Save or copy the image again.")
    for signature, label, size_of, is_whole in _FORMATS:
        if data.startswith(signature) and (signature != b"RIFF" or data[8:12] == b"WEBP"):
            return label, size_of, is_whole
    raise ImageFileError(
        f"{name}: expected PNG, JPEG, BMP, TIFF, WebP, PGM or PPM, got a file that begins {data[:8]!r}. Convert it."
    )


def read_size(data: bytes, name: str) -> Size:
    """Return width and height in pixels from the header of an image file's bytes.

    Raises:
        ImageFileError: no bytes, another type of file, a header cut short, or a size of zero.
    """
    label, size_of, _ = _find_format(data, name)
    try:
        width, height = size_of(data)
    except (struct.error, ValueError, IndexError) as error:
        raise ImageFileError(
            f"{name}: its {label} header is cut short or damaged ({len(data)} bytes). Save or copy the image again."
        ) from error
    if width < 1 or height < 1:
        raise ImageFileError(f"{name}: expected 1 x 1 pixels or more, got {width} x {height}. Save the image again.")
    return width, height


def check_complete(data: bytes, name: str) -> None:
    """Check that the file goes on to its end; a decoder would fill a missing part with grey.

    Raises:
        ImageFileError: the file is cut short.
    """
    label, _, is_whole = _find_format(data, name)
    try:
        whole = is_whole(data)
    except (struct.error, ValueError, IndexError):
        whole = False
    if not whole:
        raise ImageFileError(
            f"{name}: is cut short: this {label} file ends after {len(data)} bytes, before its image does. "
            "Save or copy the image again."
        )

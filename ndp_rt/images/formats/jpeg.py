"""JPEG (ITU-T T.81): markers, then libjpeg-turbo through simplejpeg, which reports what libjpeg only warns of.

OpenCV and Pillow decode the same values, and fill what is missing with grey without a word. JPEG has no checksums: a
bit that flips and still makes codes is not noticed.
"""

import dataclasses
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndp_rt.errors import MissingExtraError
from ndp_rt.images.checks import Image
from ndp_rt.images.formats.encoded import Damage, Encoded, Refusal, choose_page
from ndp_rt.images.formats.exif import PREFIX, read_orientation

SIGNATURE = b"\xff\xd8\xff"
START, END, SCAN = 0xD8, 0xD9, 0xDA
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
FRAMES = frozenset({BASELINE, EXTENDED, PROGRESSIVE})  # SOF0 to SOF2, each with Huffman's codes
# Markers that only JPEGs of a kind have that is not read: SOF3 to SOF15, DAC, DNL, DHP, and SOF55 of JPEG-LS.
OTHER_KINDS = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "a hierarchical JPEG")
OTHER_KINDS |= {0xC3: "a lossless JPEG", 0xCB: "a lossless JPEG", 0xF7: "JPEG-LS"}
OTHER_KINDS |= dict.fromkeys((0xC9, 0xCA, 0xCC), "a JPEG in arithmetic coding")
OTHER_KINDS |= {0xDC: "a JPEG that tells its height behind its pixels"}
COEFFICIENTS, UNKNOWN = 64, 16  # of a block; a shift that no scan has
# DHT, DQT, DRI, APP0 to APP15, COM. Others, such as TEM and restart markers, have no place between segments.
SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
NO_MARKERS = np.array([kind in (0x00, 0xFF, *range(0xD0, 0xD8)) for kind in range(256)])  # after FF in coded data
MOST_SCANS = 64  # libjpeg goes over the whole image once for each; encoders make about ten
SEARCHED_BYTES = 2**16  # for a marker at a time
BLOCK_PX = 64  # a block takes at least one bit
APP1, APP2 = 0xE1, 0xE2
PICTURES, PICTURE_LIST = b"MPF\0", 0xB002  # CIPA DC-007
MOST_PICTURES = 256  # that follow each other
THUMBNAIL = 0x01  # third byte of a picture's attributes


@dataclass
class _Found:
    frame: bytes = b""
    frame_kind: int = 0
    scans: list[bytes] = field(default_factory=list)  # their headers
    end: int = 0  # behind the end marker
    orientation: int | None = None
    pictures: tuple[tuple[int, int], ...] = ()  # where the list of a file with several says that they are, and bytes


def read_header(data: bytes, page: int | None = None) -> Encoded:
    """Check a JPEG file's markers, and choose one of its pictures.

    Raises:
        Refusal: it is damaged, of a kind that is not read, or holds several pictures and none is chosen.
    """
    found = _walk(data)
    pictures = found.pictures if len(found.pictures) > 1 else _list_following(data, found.end)
    if any(start + size_bytes > len(data) for start, size_bytes in pictures):
        raise Damage(f"it lists pictures behind its end ({len(data)} bytes)")
    start, size_bytes = pictures[choose_page(page, len(pictures), "a JPEG file (MPO)") - 1]
    if start:
        data = data[start : start + size_bytes]
        if not data.startswith(SIGNATURE):
            raise Damage(f"its list says that a picture begins at byte {start}")
        found = _walk(data)
    return dataclasses.replace(_read_frame(data, found), page_count=len(pictures))


def _list_following(data: bytes, end: int) -> list[tuple[int, int]]:
    """Return where pictures that follow each other without a list begin, and their bytes; the first ends at `end`."""
    pictures = [(0, end)]
    while data[end : end + 3] == SIGNATURE:
        start, end = end, end + _walk(data[end:]).end
        pictures.append((start, end - start))
        if len(pictures) > MOST_PICTURES:
            raise Refusal(f"expected up to {MOST_PICTURES} pictures, got more. Save one as a file of its own.")
    return pictures


def _read_frame(data: bytes, found: _Found) -> Encoded:
    """Check what the markers of one picture say."""
    if len(found.frame) < 6:
        raise Damage("it has no frame header")
    bits, height, width, count = struct.unpack_from(">BHHB", found.frame)
    if bits != 8:
        raise Refusal(f"expected a JPEG of 8 bits, got one of {bits}. Save it as a 16-bit PNG or TIFF.")
    if height == 0 or width == 0:
        raise Damage(f"its header says {width} x {height} pixels")
    if count not in (1, 3):
        raise Refusal(f"expected grey or RGB, got a JPEG of {count} channels (CMYK?). Convert it to one of them.")
    if len(found.scans) > MOST_SCANS:
        raise Refusal(f"expected a JPEG of up to {MOST_SCANS} scans, got {len(found.scans)}. Save it as baseline.")
    _check_scans(found)
    if height * width > BLOCK_PX * 8 * len(data):
        raise Damage(f"it holds too little for {width} x {height} pixels")
    return Encoded(
        height_px=height,
        width_px=width,
        decoded_bytes=height * width * count,
        decode=lambda _: _decode(data, (height, width), count),
        orientation=found.orientation or 1,
    )


def _check_scans(found: _Found) -> None:
    """Check that the scans together hold every channel, and of a progressive file every coefficient's last bit.

    libjpeg takes what no scan holds for 0 and says nothing, so a file that ends after any of its scans would be whole.
    """
    known = {channel: COEFFICIENTS * [UNKNOWN] for channel in found.frame[6::3]}
    for scan in found.scans:
        first, last, shift = scan[-3], scan[-2], scan[-1] & 15
        if found.frame_kind != PROGRESSIVE:
            first, last, shift = 0, COEFFICIENTS - 1, 0
        for channel in scan[1:-3:2]:
            if channel in known:
                known[channel][first : last + 1] = [shift] * (min(last, COEFFICIENTS - 1) + 1 - first)
    if any(any(shifts) for shifts in known.values()):
        raise Damage("some of its scans are missing")


def _decode(data: bytes, size: tuple[int, int], count: int) -> Image:
    decoder = _find_decoder()
    try:
        if decoder.decode_jpeg_header(data)[:2] != size:
            raise Damage("its header can be read in two ways")
        image: Image = decoder.decode_jpeg(data, "GRAY" if count == 1 else "RGB")
    except ValueError as error:
        raise Damage(str(error)) from error
    return image[..., 0] if count == 1 else image


def _find_decoder() -> Any:
    """Return simplejpeg; a machine that reads no JPEG may lack it."""
    try:
        import simplejpeg
    except ImportError as error:
        raise MissingExtraError(
            f"reading JPEG files needs the package simplejpeg, which cannot be loaded ({error}). Run: pip install "
            "--force-reinstall simplejpeg"
        ) from error
    return simplejpeg


def is_ycbcr(data: bytes) -> bool:
    """Tell whether libjpeg takes a colour JPEG's channels for YCbCr, and not for RGB."""
    decoder = _find_decoder()
    try:
        return bool(decoder.decode_jpeg_header(data)[2] == "YCbCr")
    except ValueError as error:
        raise Damage(str(error)) from error


def _walk(data: bytes) -> _Found:
    """Go from marker to marker up to the end of the image."""
    found, at = _Found(), 2
    while True:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 2 > len(data) or data[at] != 0xFF:
            raise Damage("it ends before its end marker" if at + 2 > len(data) else "bytes lie between its segments")
        kind = data[at + 1]
        if kind == END:
            found.end = at + 2
            return found
        (length,) = struct.unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        if length < 2 or len(content) != length - 2:
            raise Damage("it ends within a segment")
        at += 2 + length
        if kind == APP2 and content.startswith(PICTURES):
            found.pictures = _list_pictures(content[len(PICTURES) :], at - len(content) + len(PICTURES))
        _note(found, kind, content)
        if kind == SCAN:
            found.scans.append(content)
            at = _find_marker(data, at)


def _find_marker(data: bytes, at: int) -> int:
    """Return where the first marker is that ends coded data which begins at `at`."""
    codes = np.frombuffer(data, np.uint8)
    while at < len(data):
        part = codes[at : at + SEARCHED_BYTES]
        places = at + np.flatnonzero(part[:-1] == 0xFF)
        markers = places[~NO_MARKERS[codes[places + 1]]]
        if markers.size:
            return int(markers[0])
        at += max(1, len(part) - 1)
    raise Damage("it ends before its end marker")


def _note(found: _Found, kind: int, content: bytes) -> None:
    """Take what a segment says."""
    if kind in OTHER_KINDS:
        raise Refusal(f"expected a baseline or progressive JPEG, got {OTHER_KINDS[kind]}. Save it as PNG or TIFF.")
    if kind in FRAMES:
        if found.frame:
            raise Damage("it has two frame headers")
        found.frame, found.frame_kind = content, kind
    elif kind == SCAN and not found.frame:
        raise Damage("its pixels begin before its frame header")
    elif kind not in SEGMENTS and kind != SCAN:
        raise Damage(f"it has a marker {kind:02X} where none can be")
    elif kind == APP1 and content.startswith(PREFIX) and found.orientation is None:
        found.orientation = read_orientation(content)


def _list_pictures(block: bytes, at_byte: int) -> tuple[tuple[int, int], ...]:
    """Return begin and bytes of the pictures that are no thumbnails, as a multi-picture block at a byte lists them."""
    order = "<" if block[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, first)
    for index in range(count):
        tag, _, size_bytes, at = struct.unpack_from(order + "HHII", block, first + 2 + 12 * index)
        if tag == PICTURE_LIST:
            entries = [struct.unpack_from(order + "III", block, at + 16 * k) for k in range(size_bytes // 16)]
            return tuple(
                (place and at_byte + place, length)  # 0 is the file's first picture
                for attributes, length, place in entries
                if (attributes >> 16) & 0xFF != THUMBNAIL
            )
    return ()

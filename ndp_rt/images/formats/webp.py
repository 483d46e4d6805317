"""WebP (RFC 9649): chunks; OpenCV's libwebp then decodes the pixels. WebP has no checksums, as JPEG has none."""

import struct

from ndp_rt.images.formats.encoded import ONE_FRAME, Damage, Encoded, Refusal, decode_with_opencv
from ndp_rt.images.formats.exif import read_orientation

IS_ANIMATED = 0x02  # in the flags of VP8X
PROMISED = {0x20: b"ICCP", 0x10: b"ALPH", 0x08: b"EXIF", 0x04: b"XMP "}  # by flag; VP8L has alpha without a chunk
LOSSY, LOSSLESS, EXTENDED = b"VP8 ", b"VP8L", b"VP8X"


def is_webp(data: bytes) -> bool:
    """Tell whether a file's first bytes are WebP's."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_header(data: bytes) -> Encoded:
    """Check a WebP file's chunks.

    Raises:
        Refusal: it is damaged, or animated.
    """
    chunks = _list_chunks(data)
    kinds = [kind for kind, _ in chunks]
    extended = dict(chunks).get(EXTENDED, b"")
    if b"ANIM" in kinds or b"ANMF" in kinds or (extended and extended[0] & IS_ANIMATED):
        raise Refusal(f"expected one picture, got an animated WebP. {ONE_FRAME}")
    pictures = [(kind, content) for kind, content in chunks if kind in (LOSSY, LOSSLESS)]
    if len(pictures) != 1:
        raise Damage(f"expected one picture chunk, got {len(pictures)}")
    width, height = _read_size(*pictures[0])
    missing = [kind for flag, kind in PROMISED.items() if extended and extended[0] & flag and kind not in kinds]
    if missing and not (missing == [b"ALPH"] and LOSSLESS in kinds):
        raise Damage(f"its chunk {missing[0]!r} is missing")
    if extended and _read_canvas(extended) != (width, height):
        raise Damage("its canvas and its picture differ in size")
    return Encoded(
        height_px=height,
        width_px=width,
        decoded_bytes=4 * height * width,
        decode=lambda keeps_alpha: decode_with_opencv(data, keeps_alpha),
        orientation=read_orientation(dict(chunks).get(b"EXIF", b"")),
    )


def _list_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Damage(f"its header says {end} bytes, it has {len(data)}")
    chunks, at = [], 12
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise Damage(f"it ends within a chunk {kind!r}")
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    if at < end:
        raise Damage("it ends within a chunk")
    return chunks


def _read_size(kind: bytes, content: bytes) -> tuple[int, int]:
    if kind == LOSSLESS:
        (bits,) = struct.unpack_from("<I", content, 1)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 6)
    if not width * height:
        raise Damage(f"its header says {width} x {height} pixels")
    return width & 0x3FFF, height & 0x3FFF


def _read_canvas(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1

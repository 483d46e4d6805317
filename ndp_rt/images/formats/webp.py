"""WebP (RFC 9649): chunks; OpenCV's libwebp then decodes the pixels. WebP has no checksums, as JPEG has none."""

import struct
from collections.abc import Sequence

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.images.formats.animation import CLEAR, KEEP, Frame, check_frames, compose
from ndp_rt.images.formats.encoded import Canvas, Damage, Encoded, choose_page, decode_with_opencv
from ndp_rt.images.formats.exif import read_orientation

IS_ANIMATED = 0x02  # in the flags of VP8X
ALPHA_FLAG = 0x10
COVERS, CLEARS = 0x02, 0x01  # in the flags of a frame
LOSSY, LOSSLESS, EXTENDED, ALPHA, FRAME = b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANMF"
PROMISED = {
    0x20: b"ICCP",
    ALPHA_FLAG: ALPHA,
    0x08: b"EXIF",
    0x04: b"XMP ",
}  # by flag; VP8L and frames have alpha without one
Chunk = tuple[bytes, bytes]  # kind, content


def is_webp(data: bytes) -> bool:
    """Tell whether a file's first bytes are WebP's."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_header(data: bytes, page: int | None = None) -> Encoded:
    """Check a WebP file's chunks, and choose one of its frames.

    Raises:
        Refusal: it is damaged, or has several frames and none is chosen.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Damage(f"its header says {end} bytes, it has {len(data)}")
    chunks = _list_chunks(data[12:end])
    kinds = [kind for kind, _ in chunks]
    extended = dict(chunks).get(EXTENDED, b"")
    missing = [kind for flag, kind in PROMISED.items() if extended and extended[0] & flag and kind not in kinds]
    if missing and not (missing == [ALPHA] and {LOSSLESS, FRAME} & set(kinds)):
        raise Damage(f"its chunk {missing[0]!r} is missing")
    if FRAME in kinds or b"ANIM" in kinds or (extended and extended[0] & IS_ANIMATED):
        return _read_animation(chunks, extended, page)
    choose_page(page, 1, "a WebP")
    pictures = [(kind, content) for kind, content in chunks if kind in (LOSSY, LOSSLESS)]
    if len(pictures) != 1:
        raise Damage(f"expected one picture chunk, got {len(pictures)}")
    width, height = _read_size(*pictures[0])
    if extended and _read_canvas(extended) != (width, height):
        raise Damage("its canvas and its picture differ in size")
    return Encoded(
        height_px=height,
        width_px=width,
        decoded_bytes=4 * height * width,
        decode=lambda keeps_alpha: decode_with_opencv(data, keeps_alpha),
        orientation=read_orientation(dict(chunks).get(b"EXIF", b"")),
    )


def _read_animation(chunks: Sequence[Chunk], extended: bytes, page: int | None) -> Encoded:
    """Return one of the frames as it is shown."""
    height, width = _read_canvas(extended)[::-1]
    frames = [_read_frame(content) for kind, content in chunks if kind == FRAME]
    if not frames or any(kind in (LOSSY, LOSSLESS) for kind, _ in chunks):
        raise Damage("it says that it is animated, and has no frames or pictures beside them")
    check_frames(frames, height, width)
    chosen = choose_page(page, len(frames), "an animated WebP")

    def decode(keeps_alpha: bool, canvas: Canvas) -> Image:
        return compose(frames[:chosen], height, width, keeps_alpha, canvas)

    return Encoded(
        height_px=height,
        width_px=width,
        decoded_bytes=4 * height * width,
        decode=lambda keeps_alpha: decode(keeps_alpha, Canvas()),
        decode_frame=decode,
        orientation=read_orientation(dict(chunks).get(b"EXIF", b"")),
        page_count=len(frames),
    )


def _read_frame(content: bytes) -> Frame:
    left, top, width, height = (int.from_bytes(content[at : at + 3], "little") for at in range(0, 12, 3))
    chunks = [one for one in _list_chunks(content[16:]) if one[0] in (ALPHA, LOSSY, LOSSLESS)]
    pictures = [one for one in chunks if one[0] != ALPHA]
    if len(pictures) != 1 or _read_size(*pictures[0]) != (width + 1, height + 1):
        raise Damage("a frame has no picture, or one of another size")
    if len(chunks) > 1:  # alpha
        flags = bytes([ALPHA_FLAG, 0, 0, 0])
        chunks.insert(0, (EXTENDED, flags + width.to_bytes(3, "little") + height.to_bytes(3, "little")))
    file = b"WEBP" + b"".join(struct.pack("<4sI", k, len(c)) + c + bytes(len(c) % 2) for k, c in chunks)
    file = b"RIFF" + struct.pack("<I", len(file)) + file

    def decode() -> Image:
        pixels = decode_with_opencv(file, True)
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        return pixels if pixels.shape[2] == 4 else np.concatenate([pixels, opaque], axis=2)

    return Frame(
        top=2 * top,
        left=2 * left,
        height=height + 1,
        width=width + 1,
        covers=bool(content[15] & COVERS),
        disposal=CLEAR if content[15] & CLEARS else KEEP,
        decode=decode,
    )


def _list_chunks(data: bytes) -> list[Chunk]:
    """Return the chunks that follow each other in some bytes."""
    chunks, at, end = [], 0, len(data)
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

"""PNG (W3C, third edition): chunks with their checksums; OpenCV's libpng then decodes the pixels.

libpng stops at too little image data and at a wrong checksum of it, so what is left to check is around it. It is given
the chunks that hold pixels alone: others have been a way into decoders, and animations crash OpenCV 5.0. So each frame
of an animation becomes a PNG of its own.
"""

import struct
import zlib

from ndp_rt.images.checks import Image
from ndp_rt.images.formats.animation import compose
from ndp_rt.images.formats.apng import END, HEADER, PALETTE, PIXELS, SIGNATURE, TRANSPARENCY, Chunk, list_pictures
from ndp_rt.images.formats.encoded import Canvas, Damage, Encoded, Refusal, choose_page, decode_with_opencv
from ndp_rt.images.formats.exif import read_orientation

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
MOST_DEFLATED = 1032  # bytes that one byte of a deflate stream can become

__all__ = ["SIGNATURE", "read_header"]


def read_header(data: bytes, page: int | None = None) -> Encoded:
    """Check a PNG file's chunks, and choose one of its frames.

    Raises:
        Refusal: it is damaged, or has several frames and none is chosen.
    """
    chunks = _list_chunks(data)
    kinds = [kind for kind, _, _ in chunks]
    if kinds[0] != HEADER or len(chunks[0][1]) != 13 or kinds.count(HEADER) > 1:
        raise Damage("a PNG file begins with one header chunk, and has no other")
    first = kinds.index(PIXELS) if PIXELS in kinds else 0
    count = kinds.count(PIXELS)
    if count == 0 or kinds[first : first + count] != [PIXELS] * count:
        raise Damage("its image data is missing, or not in one piece")
    unknown = [kind for kind in kinds if kind[0] & 0x20 == 0 and kind not in (HEADER, PALETTE, PIXELS, END)]
    if unknown:
        raise Refusal(f"expected a standard PNG, got one with a chunk {unknown[0]!r}. Save it with another program.")
    width, height, bits, colour, *methods = struct.unpack(">IIBBBBB", chunks[0][1])
    if bits not in BITS.get(colour, ()) or methods[:2] != [0, 0] or methods[2] > 1 or not width * height:
        raise Damage(f"its header says {width} x {height} pixels, {bits} bits, colour type {colour}")
    if colour == 3 and PALETTE not in kinds[:first]:
        raise Damage("its palette is missing")
    pictures = list_pictures(chunks, (height, width))
    chosen = choose_page(page, len(pictures), "an animated PNG")
    for one in pictures[:chosen]:
        if one.height * (one.width * SAMPLES[colour] * bits // 8) > MOST_DEFLATED * sum(map(len, one.pixels)):
            raise Damage(f"it holds too little for {one.width} x {one.height} pixels")
    found = {kind: bytes(content) for kind, content, _ in chunks if kind in (b"eXIf", b"sBIT")}

    def decode(keeps_alpha: bool, canvas: Canvas) -> Image:
        if pictures[chosen - 1].is_frame:
            shared = [bytes(whole) for kind, _, whole in chunks if kind in (PALETTE, TRANSPARENCY)]
            frames = [one.make_frame(bytes(chunks[0][1][8:]), shared) for one in pictures[:chosen] if one.is_frame]
            return compose(frames, height, width, keeps_alpha, canvas)
        kept = (HEADER, PALETTE, TRANSPARENCY, PIXELS, END)
        return decode_with_opencv(SIGNATURE + b"".join(whole for kind, _, whole in chunks if kind in kept), keeps_alpha)

    return Encoded(
        height_px=height,
        width_px=width,
        decoded_bytes=height * width * (4 if colour != 0 else 1) * max(1, bits // 8),
        decode=lambda keeps_alpha: decode(keeps_alpha, Canvas()),
        decode_frame=decode,
        orientation=read_orientation(found.get(b"eXIf", b"")),
        significant_bits=max(found[b"sBIT"][:3], default=None) if bits == 16 and b"sBIT" in found else None,
        page_count=len(pictures),
    )


def _list_chunks(data: bytes) -> list[Chunk]:
    """Return the chunks up to the end chunk; all checksums are right."""
    chunks: list[Chunk] = []
    view, at = memoryview(data), len(SIGNATURE)
    while not chunks or chunks[-1][0] != END:
        if at + 12 > len(data):
            raise Damage("it ends before its end chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise Damage(f"it ends within a chunk {kind!r}")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(view[at + 4 : end - 4]) != checksum:
            raise Damage(f"the checksum of a chunk {kind!r} is wrong")
        chunks.append((kind, view[at + 8 : end - 4], view[at:end]))
        at = end
    return chunks

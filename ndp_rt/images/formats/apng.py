"""The frames of animated PNGs (PNG, third edition, 4.9). Each becomes a PNG of its own, which libpng decodes."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ndp_rt.images.checks import Image
from ndp_rt.images.formats.animation import Frame, check_frames
from ndp_rt.images.formats.encoded import Damage, decode_with_opencv

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER, PALETTE, TRANSPARENCY, PIXELS, END = b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"
ANIMATION, FRAME, FRAME_PIXELS = b"acTL", b"fcTL", b"fdAT"
CONTROL = ">IIIIIHHBB"  # number, width, height, left, top, two of the time, disposal, blending
Chunk = tuple[bytes, memoryview, memoryview]  # type, content, the whole chunk


@dataclass(kw_only=True)
class Picture:
    """A picture of a file: a frame, or the one that no animation shows."""

    height: int
    width: int
    top: int = 0
    left: int = 0
    disposal: int = 0
    covers: bool = True
    is_frame: bool = False
    pixels: list[memoryview] = field(default_factory=list)  # a deflate stream in pieces

    def make_frame(self, layout: bytes, shared: Sequence[bytes]) -> Frame:
        """Return it as a frame; `layout` is what follows the size in the file's header, `shared` are whole chunks."""
        head = _make_chunk(HEADER, struct.pack(">II", self.width, self.height) + layout)

        def decode() -> Image:
            pixels = [_make_chunk(PIXELS, bytes(one)) for one in self.pixels]
            return decode_with_opencv(b"".join([SIGNATURE, head, *shared, *pixels, _make_chunk(END, b"")]), True)

        return Frame(
            top=self.top,
            left=self.left,
            height=self.height,
            width=self.width,
            covers=self.covers,
            disposal=self.disposal,
            decode=decode,
        )


def list_pictures(chunks: Sequence[Chunk], size: tuple[int, int]) -> list[Picture]:
    """Return all pictures of a file of some height and width, in their order.

    Raises:
        Refusal: a frame, or a part of one, is missing, or lies outside the picture; or there are very many.
    """
    pictures = list[Picture]()
    numbers, said_count = list[int](), 0
    for kind, content, _ in chunks:
        if kind == ANIMATION:
            (said_count,) = struct.unpack_from(">I", content)
        elif kind == FRAME:
            number, width, height, left, top, _, _, disposal, blending = struct.unpack(CONTROL, content)
            numbers.append(number)
            if disposal > 2 or blending > 1:
                raise Damage(f"a frame says disposal {disposal} and blending {blending}")
            picture = Picture(height=height, width=width, top=top, left=left, disposal=disposal, covers=blending == 0)
            picture.is_frame = True
            pictures.append(picture)
        elif kind == PIXELS:
            if not pictures:
                pictures.append(Picture(height=size[0], width=size[1]))
            pictures[-1].pixels.append(content)
        elif kind == FRAME_PIXELS:
            numbers += struct.unpack_from(">I", content)
            pictures[-1].pixels.append(content[4:])
    frames = [one for one in pictures if one.is_frame]
    if numbers != list(range(len(numbers))) or said_count != len(frames):
        raise Damage(f"a part of its animation is missing: it says {said_count} frames, it has {len(frames)}")
    if not all(one.pixels for one in pictures):
        raise Damage("a frame of its animation has no pixels")
    check_frames(frames, *size)
    return pictures


def _make_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

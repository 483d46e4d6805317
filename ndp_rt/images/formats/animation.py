"""Composes the frames of animated PNG and WebP, which may hold what changed alone, into the picture that is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.images.formats.encoded import Canvas, Damage, Refusal

KEEP, CLEAR, RESTORE = range(3)  # what becomes of a frame's place before the next one, as APNG numbers it
MOST_FRAMES = 1024  # those before a frame are decoded with it


class Placed(Protocol):
    """Where a frame lies in its picture."""

    @property
    def top(self) -> int: ...

    @property
    def left(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame; `decode` returns its pixels with alpha where there is one, for all frames of a file alike."""

    top: int
    left: int
    height: int
    width: int
    covers: bool  # also where it is transparent
    disposal: int
    decode: Callable[[], Image]


def check_frames(frames: Sequence[Placed], height: int, width: int) -> None:
    """Check that frames lie within a picture.

    Raises:
        Refusal: one does not, or there are too many.
    """
    if len(frames) > MOST_FRAMES:
        raise Refusal(f"expected up to {MOST_FRAMES} frames, got {len(frames)}. Save one as a file of its own.")
    for one in frames:
        if min(one.height, one.width) < 1 or one.top + one.height > height or one.left + one.width > width:
            raise Damage("a frame lies outside the picture")


def compose(frames: Sequence[Frame], height: int, width: int, keeps_alpha: bool, canvas: Canvas) -> Image:
    """Return what the last of some frames, one or more, shows: [h, w] or RGB, with alpha where it is kept.

    Args:
        frames: from the file's first.
        height: of the picture.
        width: of the picture.
        keeps_alpha: or drops it.
        canvas: a new one, or that of another page of this file; goes on from there where it can.

    Raises:
        Refusal: a frame is damaged, or lies over another and is partly transparent.
    """
    if canvas.frame_count >= len(frames):
        canvas.frame_count = 0
    shown = canvas.pixels
    for number, one in enumerate(frames[canvas.frame_count :], canvas.frame_count):
        decoded = one.decode()
        piece = decoded[..., None] if decoded.ndim == 2 else decoded
        if piece.shape[:2] != (one.height, one.width):
            raise Damage(f"a frame has {piece.shape[1]} x {piece.shape[0]} pixels, not {one.width} x {one.height}")
        if number == 0:
            canvas.pixels = np.zeros((height, width, piece.shape[2]), piece.dtype)
        place = canvas.pixels[one.top : one.top + one.height, one.left : one.left + one.width]
        before = place.copy() if one.disposal == RESTORE else None
        if number == 0 or one.covers or piece.shape[2] == 3:  # over nothing, a frame is itself
            place[...] = piece
        else:
            _lay_over(place, piece)
        if number == len(frames) - 1:
            shown = canvas.pixels.copy()
        if one.disposal != KEEP:
            place[...] = 0 if before is None else before
        canvas.frame_count = number + 1
    if not keeps_alpha:
        shown = shown[..., :3] if shown.shape[2] > 2 else shown[..., :1]
    return shown[..., 0] if shown.shape[2] == 1 else shown


def _lay_over(place: Image, piece: Image) -> None:
    """Take a frame's pixels where they are opaque; a single channel is."""
    if piece.shape[2] == 1:
        place[...] = piece
        return
    alpha = piece[..., -1:]
    if ((alpha > 0) & (alpha < np.iinfo(piece.dtype).max)).any():
        raise Refusal("expected frames that are opaque or clear, got one that shines through. Save it without alpha.")
    np.copyto(place, piece, where=alpha > 0)

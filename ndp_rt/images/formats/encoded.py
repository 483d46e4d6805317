"""What every format's module gives back: the header of an image file, checked, and how its pixels are decoded."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.images.opencv import cv2

AGAIN = "Save or copy the image again."
CHOOSE = "Choose one: --page N, or page=N of read_image."


class Refusal(ValueError):
    """A file that is not decoded: what was expected, what came, and what to do; the caller adds the file's name."""


class Damage(Refusal):
    """A file that was damaged or cut short."""

    def __init__(self, what: str) -> None:
        super().__init__(f"is damaged or cut short: {what}. {AGAIN}")


class SeveralPages(Refusal):
    """A file of several pictures, of which none was asked for."""

    def __init__(self, kind: str, count: int) -> None:
        super().__init__(f"expected one picture, got {kind} with {count} pages. {CHOOSE}")
        self.count = count


def choose_page(page: int | None, count: int, kind: str) -> int:
    """Return the page to read of a file, counted from 1; `page` is the one that was asked for.

    Raises:
        SeveralPages: none was asked for; a format asks before it looks at what any one page says.
        Refusal: there is no such page.
    """
    if page is None and count > 1:
        raise SeveralPages(kind, count)
    if page is not None and not 1 <= page <= count:
        raise Refusal(f"expected a page from 1 to {count}, got {page}.")
    return page or 1


@dataclass(kw_only=True, eq=False)
class Canvas:
    """What an animation has come to after some frames: kept for its next page, so that each frame is decoded once."""

    frame_count: int = 0
    pixels: Image = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))  # as the next frame finds them


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """An image file whose header was read and whose pixels were not.

    Attributes:
        height_px: as stored, before it is turned.
        width_px: as stored, before it is turned.
        decoded_bytes: what the pixels take once decoded.
        decode: returns them as stored: uint8 or uint16, [h, w] or RGB [h, w, 3]; with True also alpha, where there is
            one: [h, w, 2] or [h, w, 4]. Raises Refusal.
        orientation: 1 to 8, as EXIF and TIFF count them.
        white: the largest value that the file declares for its 16-bit values; 65535 where it declares none.
        significant_bits: of each value, where the file notes them without declaring a white (PNG's sBIT).
        page_count: of the file; this is one of them.
        decode_frame: as `decode`, of an animation, beginning with what other pages of this file have come to.
    """

    height_px: int
    width_px: int
    decoded_bytes: int
    decode: Callable[[bool], Image]
    orientation: int = 1
    white: int = 65535
    significant_bits: int | None = None
    page_count: int = 1
    decode_frame: Callable[[bool, Canvas], Image] | None = None


def decode_with_opencv(data: bytes, keeps_alpha: bool) -> Image:
    """Decode bytes whose format was checked; alpha is dropped unless it is to be kept.

    Raises:
        Damage: OpenCV finds damage in the pixels.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise Damage(f"it cannot be decoded ({error.err})") from error
    if image is None or image.size == 0:
        raise Damage("its header is fine, its content is not")
    return to_rgb(image, keeps_alpha)


def to_rgb(image: Image, keeps_alpha: bool) -> Image:
    """Return OpenCV's [h, w], BGR or BGRA as [h, w], RGB or RGBA."""
    if image.ndim == 2:
        return image
    with_alpha = cv2.COLOR_BGRA2RGBA if keeps_alpha else cv2.COLOR_BGRA2RGB
    rgb: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else with_alpha)
    return rgb

"""PGM and PPM in binary form (netpbm's P5 and P6): values from 0 to the largest that the header names."""

import dataclasses
import re

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.images.formats.encoded import Damage, Encoded, Refusal, choose_page

GREY, COLOUR = b"P5", b"P6"
HEADER = re.compile(rb"P[56]" + 3 * rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})" + rb"\s")
MOST_HEADER_BYTES = 2**16  # with comments
MOST_PAGES = 4096
MOST_SPACE = 64  # bytes between two pictures


def read_header(data: bytes, page: int | None = None) -> Encoded:
    """Read the headers of a PGM or PPM file's pictures, for one of them.

    Raises:
        Refusal: it is damaged, cut short, or holds several pictures and none is chosen.
    """
    pages, at = list[Encoded](), 0
    while at < len(data):
        one, at = _read_picture(data, at)
        pages.append(one)
        if len(pages) > MOST_PAGES:
            raise Refusal(f"expected up to {MOST_PAGES} pages, got more. Save one as a file of its own.")
    chosen = pages[choose_page(page, len(pages), "a PGM or PPM file") - 1]
    return dataclasses.replace(chosen, page_count=len(pages))


def _read_picture(data: bytes, at: int) -> tuple[Encoded, int]:
    """Read the header of the picture that begins at a byte, and return it with where the next one begins."""
    match = HEADER.match(data, at, at + MOST_HEADER_BYTES)
    if match is None:
        raise Damage("its header has no width, height and largest value")
    width, height, largest = map(int, match.groups())
    count = 3 if data.startswith(COLOUR, at) else 1
    if not width * height or not 1 <= largest <= 65535:
        raise Damage(f"its header says {width} x {height} pixels and a largest value of {largest}")
    value_count = width * height * count
    size_bytes = value_count * (1 if largest < 256 else 2)
    following = match.end() + size_bytes
    rest = data[following : following + MOST_SPACE].lstrip()
    is_last = not rest and following + MOST_SPACE >= len(data)
    if following > len(data) or not (is_last or rest.startswith((GREY, COLOUR))):
        raise Damage(f"its header says {size_bytes} bytes of pixels, it has {len(data) - match.end()}")

    def decode(_: bool) -> Image:
        values = np.frombuffer(data, np.uint8 if largest < 256 else ">u2", value_count, match.end())
        pixels = values.reshape((height, width) if count == 1 else (height, width, 3))
        if largest not in (255, 65535) and pixels.max() > largest:
            raise Damage(f"its largest value is {pixels.max()}, its header says {largest}")
        if largest < 255:
            return scale_to_8_bits(pixels, largest)
        return pixels.astype(np.uint8 if largest == 255 else np.uint16)

    encoded = Encoded(
        height_px=height,
        width_px=width,
        decoded_bytes=size_bytes,
        decode=decode,
        white=largest if largest > 255 else 65535,
    )
    return encoded, len(data) if is_last else min(len(data), following + MOST_SPACE) - len(rest)


def scale_to_8_bits(pixels: Image, largest: int) -> Image:
    """Return values from 0 to `largest`, below 255, as uint8 of the whole range."""
    table = np.rint(np.arange(256) * 255 / largest).clip(0, 255).astype(np.uint8)
    scaled: Image = table[pixels]
    return scaled

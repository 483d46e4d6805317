"""Finds which value of 16-bit images is white, and tells images whose values lie where training saw none.

Cameras of 10, 12 or 14 bits often leave their values as they are in 16: at a white level of 65535 such images are
nearly black, and everything scores alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ndp_rt.images.checks import Image
from ndp_rt.program.manifest import TrainingRange

WHITE_LEVELS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
SAMPLED_PX = 2**14  # whose values are ordered, evenly over the image
DARK, BRIGHT = 1.0, 99.0  # percentiles that stand for an image's range: single pixels do not
FACTOR = 2.0  # beyond training's brightest or below its darkest image's bright parts; light changes less
AS_TRAINED, DARKER, BRIGHTER, FAINT = "as trained", "darker", "brighter", "faint"
FAINT_SHARE = 1 / 8  # of white, below which 16-bit values probably have fewer bits


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values of one image, as they are in its file.

    Attributes:
        bits: 8 or 16.
        dark: below it lies 1 % of the values.
        bright: above it lies 1 % of the values.
        largest: of all values.
        significant_bits: that the file notes; None: it notes nothing.
    """

    bits: int
    dark: float
    bright: float
    largest: int
    significant_bits: int | None = None


def measure_values(pixels: Image, significant_bits: int | None = None) -> Values:
    """Return the values of an image, uint8 or uint16."""
    step = max(1, int(np.sqrt(pixels.shape[0] * pixels.shape[1] / SAMPLED_PX)))
    dark, bright = np.percentile(pixels[::step, ::step], (DARK, BRIGHT))
    return Values(
        bits=8 * pixels.dtype.itemsize,
        dark=float(dark),
        bright=float(bright),
        largest=int(pixels.max()),
        significant_bits=significant_bits,
    )


def find_white_level(values: Sequence[Values]) -> tuple[int, str]:
    """Return the white level of images, and a sentence that says where it comes from; empty where none has 16 bits.

    It is that of the bits which the files note, where no value is larger, else the lowest of 8, 10, 12, 14 and 16 bits
    that holds all values.
    """
    deep = [one for one in values if one.bits == 16]
    if not deep:
        return WHITE_LEVELS[-1], ""
    noted = find_noted_level(deep)
    if noted is not None:
        return noted, f"white level {noted}: the files say {noted.bit_length()} bits"
    largest = max(one.largest for one in deep)
    level = next(level for level in WHITE_LEVELS if largest <= level)
    return level, f"white level {level}: the largest value of {len(deep)} 16-bit image(s) is {largest}"


def find_noted_level(values: Sequence[Values]) -> int | None:
    """Return the white level of the bits that all 16-bit images note in their files; None: not all note the same.

    Unlike the largest value it does not depend on how bright the few images are that are looked at.
    """
    deep = [one for one in values if one.bits == 16]
    noted = {one.significant_bits for one in deep}
    bits = noted.pop() if len(noted) == 1 else None
    if bits is None or bits < 8 or max(one.largest for one in deep) >= 2**bits:
        return None
    return (1 << bits) - 1


def describe_range(values: Sequence[Values], white_level: int) -> TrainingRange | None:
    """Return the range of training's images as shares of white; None for no images."""
    if not values:
        return None
    dark, bright = (
        [getattr(one, name) / (255 if one.bits == 8 else white_level) for one in values] for name in ("dark", "bright")
    )
    return TrainingRange(darkest=min(dark), darkest_most=max(dark), brightest_least=min(bright), brightest=max(bright))


def judge_brightness(values: Values, white_level: int, trained: TrainingRange | None) -> str | None:
    """Return how an image's range lies to training's: AS_TRAINED, DARKER or BRIGHTER.

    Where training's is not known it is None, or FAINT for 16-bit values that are all far below white.
    """
    if trained is None:
        return FAINT if values.bits == 16 and values.largest < FAINT_SHARE * white_level else None
    white = 255 if values.bits == 8 else white_level
    dark, bright = values.dark / white, values.bright / white
    if bright < trained.darkest or bright < trained.brightest_least / FACTOR:
        return DARKER
    if dark > trained.brightest or bright > trained.brightest * FACTOR:
        return BRIGHTER
    return AS_TRAINED

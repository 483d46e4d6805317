"""Frames without a surface: what a camera gives that is dead, covered or dazzled."""

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.images.painting.kinds import measure_contrast
from ndp_rt.images.painting.noise import clip_image

NOISE = 0.03  # largest standard deviation
PLAIN_CONTRAST = 0.04  # a surface of less could be taken for a blank frame that is as bright
PLAIN_DIFFERENCE = 0.2


def draw_blank(rng: np.random.Generator, image: FloatArray) -> FloatArray | None:
    """Return a frame of one brightness with a little noise; None where the surface itself looks like that.

    Args:
        rng: the only source of chance.
        image: a good one, float32 [h, w, c], 0 to 1; the frame has its shape.
    """
    level = float(rng.choice([0.0, 1.0, rng.random()]))
    noise = NOISE * rng.random() if rng.random() < 0.5 else 0.0
    frame = clip_image(level + noise * rng.standard_normal(image.shape))
    is_alike = abs(level - image.mean()) < PLAIN_DIFFERENCE and measure_contrast(image) < PLAIN_CONTRAST
    return None if is_alike else frame

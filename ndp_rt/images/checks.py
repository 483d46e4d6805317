"""Checks that an array is an image that the preprocessing reads; needs NumPy alone, as GPU machines may lack OpenCV."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.config import MAX_IMAGE_PX, ImageLimits
from ndp_rt.errors import InputError, check_choice

Image = NDArray[Any]  # uint8 or uint16, [h, w], [h, w, 1], [h, w, 3] or, with "drop-alpha", [h, w, 4]

CHANNELS = ("rgb", "bgr", "drop-alpha")
IMAGES = "uint8 or uint16 [h, w], [h, w, 1] or [h, w, 3]"
RESIZE_MAX_SIDE_PX = 2**15 - 1  # OpenCV's resize counts in 16 bits; the kernel's positions fit 32 bits up to here


def check_channels(channels: str) -> None:
    """Raise InputError unless `channels` is one of CHANNELS."""
    check_choice("channels", channels, CHANNELS)


def check_kind(dtype: np.dtype[Any], shape: tuple[int, ...], channels: str) -> None:
    """Check that an array of this type and shape is an image.

    Raises:
        InputError: another dtype, shape or channel count; the message says which.
    """
    count = shape[2] if len(shape) == 3 else 1
    if dtype.kind == "f":
        hint = "Floats carry no range (and may hold NaN): scale to 0..255 or 0..65535 and convert with astype()."
    elif dtype.kind != "u" or dtype.itemsize > 2:
        hint = "Convert it with astype()."
    elif len(shape) not in (2, 3):
        hint = "Pass one image at a time (inspect_batch reads a list)."
    elif 0 in shape:
        hint = "It has no pixels: check the crop that made it."
    elif count == 4 and channels != "drop-alpha":
        hint = 'Drop the alpha channel, or open with channels="drop-alpha".'
    elif count not in (1, 3, 4):
        hint = "Channels go last: transpose [c, h, w] arrays."
    else:
        return
    raise InputError(f"image: expected {IMAGES}, got {dtype} {list(shape)}. {hint}")


def check_resizable(height_px: int, width_px: int, max_side_px: int = RESIZE_MAX_SIDE_PX) -> None:
    """Check that an image is not too large to be resized at once.

    Raises:
        InputError: it is; the message says what to do.
    """
    if max(height_px, width_px) > max_side_px or height_px * width_px > MAX_IMAGE_PX:
        raise InputError(
            f"image: expected up to {max_side_px} pixels a side and {MAX_IMAGE_PX} in all, got {height_px} x "
            f"{width_px}. Use inspect_large(), which cuts it into tiles, or cut it yourself."
        )


def check_image(image: object, channels: str = "rgb") -> Image:
    """Return `image` if the preprocessing reads it.

    Raises:
        InputError: another type, shape, channel count or dtype; the message says which.
    """
    check_channels(channels)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"image: expected a NumPy array, {IMAGES}, got {type(image).__name__}. Read files with read_image()."
        )
    check_kind(image.dtype, image.shape, channels)
    return image


def check_whole_size(height_px: int, width_px: int) -> None:
    """Check that an image is within the limits of `ImageLimits`, and so small enough to be resized whole.

    Raises:
        InputError: it is not.
    """
    check_resizable(height_px, width_px, ImageLimits().max_side_px)

"""Which images are taken, whichever side they are on; NumPy alone, so that GPU machines without OpenCV have it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.config import MAX_IMAGE_PX, ImageLimits
from ndp_rt.errors import InputError

Image = NDArray[Any]  # uint8 or uint16, [h, w], [h, w, 1], [h, w, 3] or, with "drop-alpha", [h, w, 4]

CHANNELS = ("rgb", "bgr", "drop-alpha")
TAKEN = "uint8 or uint16, [h, w], [h, w, 1] or [h, w, 3], is taken"
RESIZE_MAX_SIDE_PX = 2**15 - 1  # OpenCV's resize counts in 16 bits; the kernel's positions fit 32 bits up to here


def check_channels(channels: str) -> None:
    """Check the order of channels that an image is said to have.

    Raises:
        InputError: it is none of CHANNELS.
    """
    if channels not in CHANNELS:
        raise InputError(f"channels is '{channels}'; one of {', '.join(CHANNELS)} is taken.")


def check_kind(dtype: np.dtype[Any], shape: tuple[int, ...], channels: str) -> None:
    """Check that an array of this type and shape is an image that the preprocessing takes.

    Raises:
        InputError: another dtype, shape or channel count; the message says which.
    """
    if dtype.kind == "f":
        hint = "Floats carry no range (and may hold NaN): scale to 0..255 or 0..65535 and convert with astype()."
        raise _refuse(dtype, shape, hint)
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise _refuse(dtype, shape, "Convert it with astype().")
    if len(shape) not in (2, 3):
        raise _refuse(dtype, shape, "Pass one image at a time (inspect_batch takes a list).")
    if 0 in shape:
        raise _refuse(dtype, shape, "Check the crop that made it.", ", which has no pixels")
    if len(shape) == 3:
        count = shape[2]
        if count == 4 and channels != "drop-alpha":
            raise _refuse(dtype, shape, 'Drop the alpha channel, or open with channels="drop-alpha".')
        if count not in (1, 3, 4):
            raise _refuse(dtype, shape, "Channels go last: transpose [c, h, w] arrays.")


def _refuse(dtype: np.dtype[Any], shape: tuple[int, ...], hint: str, flaw: str = "") -> InputError:
    return InputError(f"image is {dtype} {list(shape)}{flaw}; {TAKEN}. {hint}")


def check_resizable(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Check that an image of this shape is not too large to resize.

    Raises:
        InputError: it is; the message says what to do.
    """
    if max(shape[:2]) > RESIZE_MAX_SIDE_PX or shape[0] * shape[1] > MAX_IMAGE_PX:
        raise InputError(
            f"image is {dtype} {list(shape)}; up to {RESIZE_MAX_SIDE_PX} pixels a side and "
            f"{MAX_IMAGE_PX} in all are resized at once. Cut it into tiles (inspect_large does)."
        )


def check_image(image: object, channels: str = "rgb") -> Image:
    """Return `image` if it is one that the preprocessing takes.

    Raises:
        InputError: another type, shape, channel count or dtype; the message says which.
    """
    check_channels(channels)
    if not isinstance(image, np.ndarray):
        raise InputError(f"image is {type(image).__name__}; a NumPy array, {TAKEN}. Read files with read_image().")
    check_kind(image.dtype, image.shape, channels)
    return image


def check_whole_size(height_px: int, width_px: int) -> None:
    """Check that an image is small enough to be resized whole.

    Raises:
        InputError: it is not.
    """
    limits = ImageLimits()
    if max(height_px, width_px) > limits.max_side_px or height_px * width_px > limits.max_image_px:
        raise InputError(
            f"image is {height_px} x {width_px} pixels; up to {limits.max_side_px} a side and "
            f"{limits.max_image_px} in all are taken, for they are resized whole. Use inspect_large(), or cut it."
        )

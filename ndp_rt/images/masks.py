"""Reads masks: files of two values, of which 0 is one and the other marks pixels."""

import os
from pathlib import Path

import numpy as np

from ndp_rt.arrays import Array, BoolArray
from ndp_rt.errors import DataError, InputError
from ndp_rt.images.read import load_image

DEFECTS = "0 for good and one other value for a defect"
IGNORED = "0 for what counts and one other value for what does not"


def take_plane(pixels: Array, name: str, meaning: str) -> Array:
    """Return the one plane of a mask's file, [h, w].

    Args:
        pixels: uint8 or uint16, as `load_image` reads them with alpha.
        name: of the file, for errors.
        meaning: of its values, for errors.

    Raises:
        DataError: it has colours, or is transparent somewhere.
    """
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] in (2, 4) and np.ptp(pixels[..., -1]):
        raise refuse_mask(
            name, meaning, "a transparent part", "Save it without alpha, what is marked in white on black."
        )
    colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
    if np.ptp(colours, axis=2).any():
        raise refuse_mask(name, meaning, "colours", "Convert it to grey.")
    return colours[..., 0]


def find_marked(plane: Array, name: str, meaning: str, hint: str) -> BoolArray:
    """Return where a mask is not 0, bool [h, w].

    Raises:
        DataError: it has more values than two or none but 0, of which `hint` says what to do, or 0 is not one of two.
    """
    values = np.unique(plane)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        got = f"{len(values)} values from {values[0]} to {values[-1]}"
        raise refuse_mask(name, meaning, got, "Save it without smoothing and without JPEG.")
    if values[-1] == 0:
        raise refuse_mask(name, meaning, "0 alone", hint)
    return np.asarray(plane != 0)


def refuse_mask(name: str, meaning: str, got: str, hint: str) -> DataError:
    """Return the error of a mask that cannot be used."""
    return DataError(f"{name}: expected a mask with {meaning}, got {got}. {hint}")


def take_ignore_mask(mask: str | Path | Array) -> BoolArray:
    """Return which pixels an ignore mask marks, bool [h, w], a copy.

    Args:
        mask: a file, which is read upright, or integers or bool [h, w]. 0 counts, one other value is ignored.

    Raises:
        InputError: it is neither file nor array, marks nothing or everything, has other values, colours, or a
            transparent part.
        ImageFileError: the file cannot be read.
    """
    if not isinstance(mask, str | os.PathLike | np.ndarray):
        raise InputError(
            f"ignore_mask: expected a file, or integers or bool [h, w], got {type(mask).__name__}. Make it an array of "
            "NumPy."
        )
    is_array = isinstance(mask, np.ndarray)
    name = "ignore_mask" if is_array else str(mask)
    plane: Array = mask if isinstance(mask, np.ndarray) else load_image(mask, keeps_alpha=True).pixels
    if is_array and (plane.dtype.kind not in "bui" or plane.ndim != 2 or not plane.size):
        got = f"{plane.dtype} {list(plane.shape)}"
        raise InputError(f"{name}: expected a file, or integers or bool [h, w], got {got}.")
    try:
        plane = take_plane(plane, name, IGNORED)
        ignored = find_marked(plane, name, IGNORED, "Mark what is to be ignored, or leave the mask out.")
    except DataError as error:
        raise InputError(str(error)) from error
    if ignored.all():
        raise InputError(
            f"{name}: expected a mask with {IGNORED}, got every pixel marked, so nothing would be inspected. Leave out "
            "what counts."
        )
    return ignored

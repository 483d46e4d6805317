"""Converts between float32 and half types: float16, and bfloat16, which NumPy lacks, as the uint16 of its bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import InputError, check_choice

# The element type of image, features, repaired features and reconstruction; maps are float32 in every precision.
BORDER_DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float16"}
# The NumPy type that holds each element type.
HELD_AS: dict[str, type[np.generic]] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def narrow(values: FloatArray, dtype: str) -> NDArray[Any]:
    """Return float32 values rounded to the nearest of `dtype`, ties to even; too large ones become infinite.

    Raises:
        InputError: `dtype` is not one of HELD_AS.
    """
    check_choice("element type", dtype, HELD_AS)
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return np.asarray(values, HELD_AS[dtype])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # a carry into the exponent is right, up to infinity
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def widen(held: NDArray[Any], dtype: str) -> FloatArray:
    """Return an array that holds `dtype` as float32, exactly.

    Raises:
        InputError: `dtype` is not one of HELD_AS, or the array is of another type than HELD_AS has for it.
    """
    check_choice("element type", dtype, HELD_AS)
    if held.dtype != HELD_AS[dtype]:
        raise InputError(f"array of {dtype}: expected {HELD_AS[dtype].__name__}, got {held.dtype}.")
    if dtype != "bfloat16":
        return np.asarray(held, np.float32)
    wide: FloatArray = (np.ascontiguousarray(held).astype(np.uint32) << 16).view(np.float32)
    return wide

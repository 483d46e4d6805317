"""float16 and bfloat16 as NumPy holds them: float16 as itself, bfloat16, which it lacks, as the uint16 of its bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError

FloatArray = NDArray[np.float32]

# How an array of each element type is held.
HELD_AS: dict[str, type[np.generic]] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def narrow(values: FloatArray, dtype: str) -> NDArray[Any]:
    """Return float32 values rounded to the nearest of `dtype`, ties to even; too large ones become infinite.

    Raises:
        InputError: a type that is none of HELD_AS.
    """
    if dtype not in HELD_AS:
        raise InputError(f"element type is '{dtype}'; one of {', '.join(HELD_AS)} is taken.")
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return np.asarray(values, HELD_AS[dtype])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # a carry into the exponent is right, up to infinity
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def widen(held: NDArray[Any], dtype: str) -> FloatArray:
    """Return an array that is held as HELD_AS says as float32, exactly.

    Raises:
        InputError: the array is not held so.
    """
    if dtype not in HELD_AS or held.dtype != HELD_AS[dtype]:
        wanted = HELD_AS[dtype].__name__ if dtype in HELD_AS else f"one of {', '.join(HELD_AS)}"
        raise InputError(f"the array is {held.dtype} and said to hold {dtype}; {wanted} is taken.")
    if dtype != "bfloat16":
        return np.asarray(held, np.float32)
    wide: FloatArray = (np.ascontiguousarray(held).astype(np.uint32) << 16).view(np.float32)
    return wide

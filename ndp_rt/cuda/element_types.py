"""Between float32 on the host and the element types of device tensors; bfloat16 is held as uint16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError

FloatArray = NDArray[np.float32]


def to_device_type(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return values rounded to the nearest float32, float16 or bfloat16 (ties to even), as a dense array.

    Raises:
        InputError: another type.
    """
    floats = np.ascontiguousarray(values, np.float32)
    if dtype == "float32":
        return floats
    if dtype == "float16":
        return floats.astype(np.float16)
    if dtype != "bfloat16":
        raise InputError(f"element type is '{dtype}'; float32, float16 or bfloat16 is taken.")
    bits = floats.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = 0x7FC0 | ((bits >> 16) & 0x8000)  # adding could carry a NaN's bits over into infinity
    halves: NDArray[np.uint16] = np.where(np.isnan(floats), nan, rounded).astype(np.uint16)
    return halves


def from_device_type(values: NDArray[Any], dtype: str) -> FloatArray:
    """Return what `to_device_type` made as float32.

    Raises:
        InputError: another type.
    """
    if dtype == "bfloat16":
        wide: FloatArray = (values.astype(np.uint32) << 16).view(np.float32)
        return wide
    if dtype not in ("float32", "float16"):
        raise InputError(f"element type is '{dtype}'; float32, float16 or bfloat16 is taken.")
    return values.astype(np.float32)

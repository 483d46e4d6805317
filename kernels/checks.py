"""Checks of arrays before a kernel reads them: type, shape, layout, alignment and size."""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError

# NDP_RT_ELEMENT of kernels/shared/element.cuh, and how an array of that type is held: CuPy and NumPy lack bfloat16.
ELEMENT_CODES = {"float32": 0, "float16": 1, "bfloat16": 2}
HELD_AS = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}
MAX_INDEX = 2**31 - 1
MAX_IMAGES = 65535  # images lie along the grid's y or z


class DevicePointer(Protocol):
    """An address, as `cupy.ndarray.data`."""

    @property
    def ptr(self) -> int: ...


class DeviceArray(Protocol):
    """The part of `cupy.ndarray` that launchers use."""

    @property
    def data(self) -> DevicePointer: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> "np.dtype[Any]": ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def flags(self) -> Any: ...


def check_element_type(name: str, dtype: str) -> None:
    """Check that `dtype` is one of ELEMENT_CODES.

    Raises:
        InputError: it is not.
    """
    if dtype not in ELEMENT_CODES:
        raise InputError(f"{name}: expected one of {', '.join(ELEMENT_CODES)}, got '{dtype}'.")


def check_array(
    name: str, array: DeviceArray, dtype: str, shape: tuple[int | None, ...], *, alignment_bytes: int | None = None
) -> None:
    """Check a dense device array before its address goes to a kernel that counts its elements in 32 bits.

    Args:
        name: what the message calls it.
        array: the array.
        dtype: float32, float16, bfloat16 (held as uint16), or the name of another NumPy type.
        shape: the length of each axis; None stands for any but 0.
        alignment_bytes: what the address must be a multiple of; None means the size of an element.

    Raises:
        InputError: it has another type, shape or layout, or more than 2^31 - 1 elements.
    """
    held = HELD_AS.get(dtype, dtype)
    fits = len(array.shape) == len(shape) and all(
        length == wanted if wanted is not None else length > 0
        for length, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != held or not fits or not array.flags.c_contiguous:
        layout = "dense" if array.flags.c_contiguous else "not dense"
        wanted_type = dtype if held == dtype else f"{dtype} (held as {held})"
        axes = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(
            f"{name}: expected {wanted_type} [{axes}], dense, on the device, got {array.dtype} {list(array.shape)}, "
            f"{layout}."
        )
    count = math.prod(array.shape)
    if count > MAX_INDEX:
        raise InputError(f"{name}: expected at most {MAX_INDEX} elements, got {count}. Use a smaller batch.")
    alignment = alignment_bytes or array.dtype.itemsize
    if array.data.ptr % alignment:
        raise InputError(
            f"{name}: expected an address that is a multiple of {alignment} bytes, got {array.data.ptr:#x}. Copy it "
            "into an array of its own."
        )


def check_image_count(name: str, count: int) -> None:
    """Check that `count` images fit the y or z axis of one grid.

    Raises:
        InputError: they do not.
    """
    if count > MAX_IMAGES:
        raise InputError(f"{name}: expected at most {MAX_IMAGES} images, got {count}. Use a smaller batch.")


def check_apart(name: str, array: DeviceArray, other_name: str, other: DeviceArray) -> None:
    """Check that two dense arrays share no memory: a kernel that reads one while it writes the other needs that.

    Raises:
        InputError: they overlap.
    """
    ends = [a.data.ptr + math.prod(a.shape) * a.dtype.itemsize for a in (array, other)]
    if array.data.ptr < ends[1] and other.data.ptr < ends[0]:
        raise InputError(f"{name} and {other_name} share memory; give {name} memory of its own.")


def check_scratch(scratch: DeviceArray, size_bytes: int, *, alignment_bytes: int) -> None:
    """Check that memory which a launch overwrites is uint8, dense, aligned, and has `size_bytes` or more.

    Raises:
        InputError: it is not.
    """
    check_array("scratch", scratch, "uint8", (None,), alignment_bytes=alignment_bytes)
    if scratch.shape[0] < size_bytes:
        raise InputError(f"scratch: expected {size_bytes} bytes, got {scratch.shape[0]}.")


def get_address(array: DeviceArray) -> np.uint64:
    """Return the array's address as a kernel's argument."""
    address: np.uint64 = np.uint64(array.data.ptr)
    return address


def check_dense(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Check that `array` is float32, C-contiguous and of `shape`.

    Raises:
        InputError: it is not.
    """
    if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous:
        layout = "dense" if array.flags.c_contiguous else "not dense"
        raise InputError(
            f"{name}: expected float32 {list(shape)}, dense, got {array.dtype} {list(array.shape)}, {layout}. "
            "Copy it with np.ascontiguousarray(..., np.float32)."
        )

"""Reads DLPack capsules with ctypes: arrays on a GPU, of any library, without importing that library.

The layout is that of dlpack.h: DLManagedTensor before version 1.0, DLManagedTensorVersioned since.
"""

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

from ndp_rt.errors import InputError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType
MAX_VERSION = (1, 0)  # minor versions may add, major ones may change what is read here
TYPE_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}

DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class DlTensor(ctypes.Structure):
    """DLTensor, with DLDevice and DLDataType written out."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),  # in elements; null: dense
        ("byte_offset", ctypes.c_uint64),
    )


class DlManagedTensor(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", DlTensor), ("manager_context", ctypes.c_void_p), ("deleter", DELETER))


class DlManagedTensorVersioned(ctypes.Structure):
    """DLManagedTensorVersioned, with DLPackVersion written out."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_context", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", DlTensor),
    )


# A capsule keeps the pointer to its name, so that these live as long as the module.
NAME, USED_NAME = ctypes.c_char_p(b"dltensor"), ctypes.c_char_p(b"used_dltensor")
VERSIONED_NAME, USED_VERSIONED_NAME = (
    ctypes.c_char_p(b"dltensor_versioned"),
    ctypes.c_char_p(b"used_dltensor_versioned"),
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))


class DlpackOwner:
    """Holds a producer's tensor, and gives it back once: at `close`, or when nothing refers to this any more."""

    def __init__(self, managed: DlManagedTensor | DlManagedTensorVersioned) -> None:
        """Hold `managed`, whose memory is the producer's."""
        self._give_back = weakref.finalize(self, _call_deleter, managed.deleter, ctypes.addressof(managed))

    def close(self) -> None:
        """Give the tensor back now; twice is allowed."""
        self._give_back()


def _call_deleter(deleter: Any, address: int) -> None:
    if deleter:  # null where the producer has nothing to do
        deleter(address)


@dataclass(frozen=True, kw_only=True)
class DlpackArray:
    """The array of a capsule."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # bytes
    type_name: str  # as NumPy's dtypes are called, where NumPy has it
    owner: DlpackOwner


def take_capsule(capsule: object) -> DlpackArray:
    """Take over what a producer's `__dlpack__` returned; the capsule is used up afterwards, also after an error.

    Raises:
        InputError: it is no DLPack capsule, was used before, or is of another major version.
    """
    if _is_valid(capsule, VERSIONED_NAME):
        versioned = DlManagedTensorVersioned.from_address(_get_pointer(capsule, VERSIONED_NAME))
        _set_name(capsule, USED_VERSIONED_NAME)
        owner = DlpackOwner(versioned)
        if versioned.major != MAX_VERSION[0]:
            owner.close()
            raise InputError(
                f"image: expected DLPack below {MAX_VERSION[0] + 1}.0, got {versioned.major}.{versioned.minor}. Update "
                "ndp-rt."
            )
        return _read(versioned.tensor, owner)
    if _is_valid(capsule, NAME):
        managed = DlManagedTensor.from_address(_get_pointer(capsule, NAME))
        _set_name(capsule, USED_NAME)
        return _read(managed.tensor, DlpackOwner(managed))
    raise InputError(
        f"image: expected an unused DLPack capsule from __dlpack__, got {capsule!r}. Pass the array itself."
    )


def _read(tensor: DlTensor, owner: DlpackOwner) -> DlpackArray:
    shape = tuple(tensor.shape[: tensor.ndim])
    item_bytes = tensor.type_bits * tensor.type_lanes // 8
    if tensor.strides:
        strides = tuple(count * item_bytes for count in tensor.strides[: tensor.ndim])
    else:
        strides, step = (), item_bytes
        for length in reversed(shape):
            strides, step = (step, *strides), step * length
    lanes = f"x{tensor.type_lanes}" if tensor.type_lanes != 1 else ""
    bits = "" if tensor.type_code == 6 else str(tensor.type_bits)
    return DlpackArray(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        strides=strides,
        type_name=TYPE_CODES.get(tensor.type_code, f"type {tensor.type_code} of ") + bits + lanes,
        owner=owner,
    )

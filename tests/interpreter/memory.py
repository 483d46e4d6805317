"""Arrays that stand for device arrays: NumPy memory that the interpreter knows, with CuPy's interface."""

import weakref
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

POISON = 0xFF  # as a float, a half or a bfloat16 it is NaN


class Memory:
    """One allocation, which kernels may reach while it lives."""

    _living: ClassVar["weakref.WeakSet[Memory]"] = weakref.WeakSet()

    def __init__(self, held: NDArray[np.uint8]) -> None:
        """Take bytes as they lie."""
        self.bytes = held
        Memory._living.add(self)

    @classmethod
    def allocate(cls, byte_count: int, alignment: int) -> "Memory":
        """Return bytes that hold NaN, at an address that is a multiple of `alignment` and not of twice as much."""
        held = np.full(byte_count + 3 * alignment, POISON, np.uint8)
        start = (alignment - held.ctypes.data) % (2 * alignment)
        return cls(held[start : start + byte_count])

    @classmethod
    def list_living(cls) -> list[tuple[int, int]]:
        """Return address and bytes of every allocation."""
        return [(one.bytes.ctypes.data, one.bytes.size) for one in list(cls._living)]


@dataclass(frozen=True)
class Pointer:
    """What CuPy has as `array.data`."""

    ptr: int


class FakeDeviceArray:
    """A device array: only what launchers and plans may use of CuPy's; `get` and `set` are the copies."""

    def __init__(self, host: NDArray[Any], memory: Memory) -> None:
        self._host = host
        self._memory = memory
        self.shape = host.shape
        self.dtype = host.dtype
        self.strides = host.strides
        self.ndim = host.ndim
        self.size = host.size
        self.nbytes = host.nbytes
        self.flags = host.flags

    @property
    def data(self) -> Pointer:
        return Pointer(self._host.ctypes.data)

    def __getitem__(self, key: Any) -> "FakeDeviceArray":
        return FakeDeviceArray(self._host[key], self._memory)

    def reshape(self, *shape: int) -> "FakeDeviceArray":
        return FakeDeviceArray(self._host.reshape(*shape), self._memory)

    def transpose(self, *axes: int) -> "FakeDeviceArray":
        return FakeDeviceArray(self._host.transpose(*axes), self._memory)

    def view(self, dtype: DTypeLike) -> "FakeDeviceArray":
        return FakeDeviceArray(self._host.view(dtype), self._memory)

    def get(self) -> NDArray[Any]:
        """Copy to the host."""
        return self._host.copy()

    def set(self, host: NDArray[Any]) -> None:
        """Copy from the host: same shape and type."""
        if host.shape != self.shape or host.dtype != self.dtype:
            raise ValueError(f"{host.dtype} {host.shape} does not fit {self.dtype} {self.shape}")
        self._host[...] = host


def make_empty(shape: tuple[int, ...], dtype: DTypeLike, alignment: int = 16) -> FakeDeviceArray:
    """Return a dense device array that holds NaN (integers: all bits set)."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = Memory.allocate(count * np.dtype(dtype).itemsize, alignment)
    return FakeDeviceArray(memory.bytes.view(dtype).reshape(shape), memory)


def copy_to_device(host: NDArray[Any], alignment: int = 16) -> FakeDeviceArray:
    """Return a dense device array with the values of `host`."""
    array = make_empty(host.shape, host.dtype, alignment)
    array.set(host)
    return array

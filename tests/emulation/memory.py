"""Arrays that stand for device arrays: NumPy memory between pages that nobody may touch, with CuPy's interface."""

import ctypes
import mmap
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE_BYTES = mmap.PAGESIZE
GUARD_BYTE = 0xFF  # as a float, a half or a bfloat16 it is NaN

_LIBC = ctypes.CDLL(None, use_errno=True)


class Memory:
    """One allocation: it ends, but for its alignment, at a page without access; filled with NaN.

    One page on either side is watched; an address further off is seen only where nothing else of the process lies.
    """

    _living: ClassVar["weakref.WeakSet[Memory]"] = weakref.WeakSet()

    def __init__(self, byte_count: int, alignment: int) -> None:
        pages = -(-max(byte_count, 1) // PAGE_BYTES)
        self._map = mmap.mmap(-1, (pages + 2) * PAGE_BYTES)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for page in (0, pages + 1):
            if _LIBC.mprotect(ctypes.c_void_p(start + page * PAGE_BYTES), ctypes.c_size_t(PAGE_BYTES), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect failed")
        self._inside = np.frombuffer(self._map, np.uint8)[PAGE_BYTES:-PAGE_BYTES]
        self._inside[:] = GUARD_BYTE
        first = (len(self._inside) - byte_count) // alignment * alignment
        self.bytes = self._inside[first : first + byte_count]
        self._guards = (self._inside[:first], self._inside[first + byte_count :])
        self.address = start + PAGE_BYTES + first
        Memory._living.add(self)

    def is_damaged(self) -> bool:
        """Tell whether something was written beside the allocation's own bytes."""
        return any(guard.size and not (guard == GUARD_BYTE).all() for guard in self._guards)

    @classmethod
    def list_living(cls) -> list["Memory"]:
        return list(cls._living)


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
    memory = Memory(count * np.dtype(dtype).itemsize, alignment)
    return FakeDeviceArray(memory.bytes.view(dtype).reshape(shape), memory)


def copy_to_device(host: NDArray[Any], alignment: int = 16) -> FakeDeviceArray:
    """Return a dense device array with the values of `host`."""
    array = make_empty(host.shape, host.dtype, alignment)
    array.set(host)
    return array

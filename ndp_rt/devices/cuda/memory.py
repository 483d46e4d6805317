"""Allocates device memory and pinned host memory, one block each, and frees it when it is closed."""

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.devices.cuda.driver import OUT_OF_MEMORY, CudaDevice, translate_errors
from ndp_rt.errors import DeviceError
from ndp_rt.kernels.checks import HELD_AS

STAGING_BYTES = 2**24  # of pinned memory that tensors of any size go through, in pieces


class DeviceMemory:
    """One block of device memory; arrays in it are views that must not outlive it."""

    def __init__(self, device: CudaDevice, size_bytes: int, purpose: str) -> None:
        """Allocate.

        Raises:
            DeviceError: it does not fit; the message has the number of bytes.
        """
        self._device = device
        self.size_bytes = max(size_bytes, 1)
        device.activate()
        try:
            self.pointer = int(device.cupy.cuda.runtime.malloc(self.size_bytes))
        except RuntimeError as error:
            if getattr(error, "status", None) != OUT_OF_MEMORY:
                with translate_errors(f"allocating {purpose}"):
                    raise
            free, total = device.find_free_bytes()
            raise DeviceError(
                f"{purpose}: expected {self.size_bytes} free bytes on {device.name}, got {free} of {total}. Open with "
                "smaller batches (batches=...), or free some of its memory."
            ) from error

    def view(self, shape: tuple[int, ...], dtype: str, offset_bytes: int = 0) -> Any:
        """Return a dense CuPy array of `shape` in this memory; dtype is one of HELD_AS, or of NumPy."""
        element = np.dtype(HELD_AS.get(dtype, dtype))
        assert self.pointer and offset_bytes + math.prod(shape) * element.itemsize <= self.size_bytes
        cuda = self._device.cupy.cuda
        held = cuda.UnownedMemory(self.pointer, self.size_bytes, self, self._device.index)
        return self._device.cupy.ndarray(shape, element, memptr=cuda.MemoryPointer(held, offset_bytes))

    def close(self) -> None:
        """Free it; the caller has waited for all work on it. Twice is allowed."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            with translate_errors("freeing device memory"):
                self._device.cupy.cuda.runtime.free(pointer)


class PinnedMemory:
    """One block of page-locked host memory: copies between it and the device run beside other work."""

    def __init__(self, device: CudaDevice, size_bytes: int) -> None:
        """Allocate.

        Raises:
            DeviceError: the host has no more memory to lock.
        """
        self._runtime = device.cupy.cuda.runtime
        self.size_bytes = max(size_bytes, 1)
        device.activate()
        with translate_errors(f"locking {self.size_bytes} bytes of host memory"):
            self.pointer = int(self._runtime.hostAlloc(self.size_bytes, 0))
        self._bytes = np.ctypeslib.as_array((ctypes.c_uint8 * self.size_bytes).from_address(self.pointer))

    def view(self, shape: tuple[int, ...], dtype: Any, offset_bytes: int = 0) -> NDArray[Any]:
        """Return a dense NumPy array of `shape` in this memory; it must not outlive it."""
        assert self.pointer
        size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        view: NDArray[Any] = self._bytes[offset_bytes : offset_bytes + size_bytes].view(dtype).reshape(shape)
        return view

    def close(self) -> None:
        """Free it; the caller has waited for all copies. Twice is allowed."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            del self._bytes
            with translate_errors("unlocking host memory"):
                self._runtime.freeHost(pointer)


def copy_and_wait(
    device: CudaDevice, pointer: int, values: NDArray[Any], stream: Any, staging: PinnedMemory, *, to_device: bool
) -> None:
    """Copy an array, dense, to or from device memory through pinned memory, on a stream, and wait for it.

    Raises:
        DeviceError: the device fails.
    """
    flat = (np.ascontiguousarray(values) if to_device else values).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, staging.size_bytes):
        piece = flat[start : start + staging.size_bytes]
        held = staging.view(piece.shape, np.uint8)
        with translate_errors("copying a tensor"):
            if to_device:
                held[...] = piece
                device.copy("HostToDevice", pointer + start, staging.pointer, piece.nbytes, stream)
            else:
                device.copy("DeviceToHost", staging.pointer, pointer + start, piece.nbytes, stream)
            stream.synchronize()
        if not to_device:
            piece[...] = held


def sum_words(device: CudaDevice, memory: DeviceMemory, stream: Any, staging: PinnedMemory) -> int:
    """Wait for a stream and return the sum of a block's 8-byte words: two states of it that differ have two sums.

    Raises:
        DeviceError: the device fails.
    """
    total = 0
    for start in range(0, memory.size_bytes, staging.size_bytes):
        words = np.empty(min(staging.size_bytes, memory.size_bytes - start) // 8, np.uint64)
        copy_and_wait(device, memory.pointer + start, words, stream, staging, to_device=False)
        total += int(np.add.reduce(words))
    return total

"""A stand-in for CuPy on a machine without a GPU: device memory is host memory, streams are `fake_streams`.

It has the names that ndp-rt uses, with CuPy's signatures (tests/fakes/test_fakes.py compares them with the real CuPy),
and refuses what CUDA would refuse: a pointer outside of every allocation, host memory where device memory belongs, an
allocation while a stream captures. Kernels run in the interpreter, as the PTX that NVRTC makes of them.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.fakes.fake_streams import (
    CAPTURE_UNSUPPORTED,
    INVALID_VALUE,
    OUT_OF_MEMORY,
    CUDARuntimeError,
    FakeEvent,
    FakeGraph,
    FakeStream,
    Machine,
)

LEGACY_STREAM = 1
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
POISON = 0xFF  # NaN in every float type, so that what is read before it was written shows
DEVICE_ALIGNMENT = 256


class Heap:
    """Blocks of one kind of memory, by address."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.allocation_count = self.free_count = 0

    @property
    def used_bytes(self) -> int:
        return sum(len(block) for block in self.blocks.values())

    def allocate(self, size_bytes: int) -> int:
        if self.used_bytes + size_bytes > self.limit_bytes:
            raise CUDARuntimeError(OUT_OF_MEMORY, "cudaErrorMemoryAllocation: out of memory")
        block = np.full(size_bytes + DEVICE_ALIGNMENT, POISON, np.uint8)
        start = -block.ctypes.data % DEVICE_ALIGNMENT
        aligned = block[start : start + size_bytes]
        self.blocks[aligned.ctypes.data] = aligned
        self.allocation_count += 1
        return int(aligned.ctypes.data)

    def free(self, pointer: int) -> None:
        if pointer not in self.blocks:
            raise CUDARuntimeError(INVALID_VALUE, "cudaErrorInvalidValue: the pointer is not one that was allocated")
        self.free_count += 1
        self.blocks.pop(pointer)[:] = POISON  # what still reads it gets NaN

    def holds(self, pointer: int, size_bytes: int) -> bool:
        return any(start <= pointer and pointer + size_bytes <= start + len(b) for start, b in self.blocks.items())


class CompileException(Exception):
    """As cupy.cuda.compiler.CompileException: no RuntimeError."""


class MemoryPointer:
    """As cupy.cuda.MemoryPointer."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset


class UnownedMemory:
    """As cupy.cuda.UnownedMemory."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        self.ptr, self.size, self.owner, self.device_id = ptr, size, owner, device_id


class FakeArray:
    """As cupy.ndarray, as far as the pipeline goes: an address, a shape, a type and strides, no arithmetic."""

    def __init__(
        self, shape: tuple[int, ...], dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        assert memptr is not None, "the pipeline makes arrays in its own memory alone"
        self.shape, self.dtype, self.data = tuple(shape), np.dtype(dtype), memptr
        dense = tuple(int(np.prod(self.shape[axis + 1 :])) * self.dtype.itemsize for axis in range(len(self.shape)))
        self.strides = tuple(strides) if strides is not None else dense
        self.flags = types.SimpleNamespace(c_contiguous=self.strides == dense)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> FakeArray:
        if isinstance(key, slice):
            start, stop, step = key.indices(self.shape[0])
            assert step == 1
            shape, strides = (max(0, stop - start), *self.shape[1:]), self.strides
        else:
            start, shape, strides = range(self.shape[0])[key], self.shape[1:], self.strides[1:]
        moved = MemoryPointer(UnownedMemory(self.data.ptr + start * self.strides[0], 0, self.data), 0)
        return FakeArray(shape, self.dtype, moved, strides)

    def host(self) -> NDArray[Any]:
        """Return the memory as it is now, as a NumPy array; for tests alone."""
        span = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) + self.itemsize
        block = np.ctypeslib.as_array((ctypes.c_uint8 * span).from_address(self.data.ptr))
        return np.ndarray(self.shape, self.dtype, block.data, 0, self.strides)


class FakeCuda:
    """One fake GPU behind a module that looks like CuPy."""

    def __init__(
        self, make_module: Callable[..., Any] | None = None, *, seed: int = 0, memory_bytes: int = 2**31
    ) -> None:
        """Make it.

        Args:
            make_module: gives an interpreted module for what cupy.RawModule takes.
            seed: decides which streams are eager.
            memory_bytes: of the device.
        """
        self.machine = Machine(seed)
        self.device_heap, self.pinned_heap = Heap(memory_bytes), Heap(2**31)
        self.make_module = make_module
        self.launched: list[str] = []
        self.device_count = 1
        self.module = self._make_cupy()

    def _make_cupy(self) -> types.ModuleType:
        machine, cuda = self.machine, types.ModuleType("cupy.cuda")

        def make_stream(null: bool = False, non_blocking: bool = False, ptds: bool = False) -> FakeStream:
            assert non_blocking, "a blocking stream waits for the legacy default stream"
            return FakeStream(machine, is_eager=bool(machine.rng.integers(2)))

        def make_event(block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> FakeEvent:
            return FakeEvent(machine, block, disable_timing)

        def find_stream(ptr: int, device_id: int = -1) -> FakeStream:
            return machine.streams[ptr]

        def get_current_stream(device_id: int = -1) -> FakeStream:
            legacy = machine.streams.setdefault(LEGACY_STREAM, FakeStream(machine, is_eager=True))
            return getattr(machine.current, "stream", legacy)

        cuda.__dict__.update(
            get_current_stream=get_current_stream,
            Stream=make_stream,
            ExternalStream=find_stream,
            Event=make_event,
            get_elapsed_time=lambda start_event, end_event: 1.0,
            Graph=FakeGraph,
            MemoryPointer=MemoryPointer,
            UnownedMemory=UnownedMemory,
            compiler=types.SimpleNamespace(CompileException=CompileException),
            runtime=self._make_runtime(),
        )
        cupy = types.ModuleType("cupy")
        cupy.__dict__.update(cuda=cuda, ndarray=FakeArray, RawModule=self._make_raw_module, __version__="fake")
        return cupy

    def _make_runtime(self) -> types.SimpleNamespace:
        def set_device(device: int) -> None:
            self.machine.check()

        return types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            streamCaptureModeThreadLocal=1,
            memcpyHostToDevice=HOST_TO_DEVICE,
            memcpyDeviceToHost=DEVICE_TO_HOST,
            memcpyDeviceToDevice=DEVICE_TO_DEVICE,
            getDeviceCount=lambda: self.device_count,
            getDeviceProperties=lambda device: {"name": b"Fake GPU", "major": 9, "minor": 0},
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
            setDevice=set_device,
            memGetInfo=lambda: (
                self.device_heap.limit_bytes - self.device_heap.used_bytes,
                self.device_heap.limit_bytes,
            ),
            malloc=lambda size: self._allocate(self.device_heap, size),
            free=self._free,
            hostAlloc=lambda size, flags: self._allocate(self.pinned_heap, size),
            freeHost=self.pinned_heap.free,
            memcpyAsync=self._copy,
            memsetAsync=self._set,
            eventRecord=lambda event, stream: self.machine.events[event].record(self.machine.streams[stream]),
            pointerGetAttributes=self._find_memory,
        )

    def _find_memory(self, ptr: int) -> types.SimpleNamespace:
        """As cudaPointerGetAttributes: type 0 is memory that CUDA does not know."""
        self.machine.check()
        kinds = ((1, self.pinned_heap), (2, self.device_heap))
        return types.SimpleNamespace(type=next((kind for kind, heap in kinds if heap.holds(ptr, 1)), 0), device=0)

    def _allocate(self, heap: Heap, size_bytes: int) -> int:
        self.machine.check()
        self._refuse_in_capture("an allocation")
        return heap.allocate(size_bytes)

    def _free(self, pointer: int) -> None:
        self._refuse_in_capture("memory was freed")
        self.device_heap.free(pointer)

    def _refuse_in_capture(self, what: str) -> None:
        for stream in self.machine.streams.values():
            if stream.capture is not None:
                stream.capture.failure = CUDARuntimeError(
                    CAPTURE_UNSUPPORTED, f"cudaErrorStreamCaptureUnsupported: {what} while capturing"
                )
                raise stream.capture.failure

    def _copy(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        on_device = {HOST_TO_DEVICE: (dst,), DEVICE_TO_HOST: (src,), DEVICE_TO_DEVICE: (dst, src)}[kind]
        for pointer in (dst, src):
            if self.device_heap.holds(pointer, size) != (pointer in on_device):
                raise CUDARuntimeError(INVALID_VALUE, "cudaErrorInvalidValue: memory of another kind, or outside")
            if pointer not in on_device and not self.pinned_heap.holds(pointer, size):
                raise CUDARuntimeError(INVALID_VALUE, "pageable memory: CUDA would copy it, and not beside other work")
        self.machine.downloaded_bytes += size if kind == DEVICE_TO_HOST else 0
        self.machine.add(stream, lambda: ctypes.memmove(dst, src, size) and None)

    def _set(self, ptr: int, value: int, size: int, stream: int) -> None:
        if not self.device_heap.holds(ptr, size):
            raise CUDARuntimeError(INVALID_VALUE, "cudaErrorInvalidValue: memory of another kind, or outside")
        self.machine.add(stream, lambda: ctypes.memset(ptr, value, size) and None)

    def _make_raw_module(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: bool = False,
    ) -> Any:
        assert self.make_module is not None, "this fake was made without an interpreter"
        return _Module(self, self.make_module(code=code, options=tuple(options), backend=backend))


class _Module:
    """As cupy.RawModule."""

    def __init__(self, gpu: FakeCuda, interpreted: Any) -> None:
        self._gpu, self._interpreted = gpu, interpreted

    def compile(self, log_stream: Any = None) -> None:
        """Nothing is left to do: the interpreter compiles at once."""

    def get_function(self, name: str) -> _Function:
        return _Function(self._gpu, name, self._interpreted.get_function(name))


class _Function:
    """As cupy.RawKernel: puts the interpreted kernel on the stream."""

    def __init__(self, gpu: FakeCuda, name: str, interpreted: Any) -> None:
        self._gpu, self._name, self._interpreted = gpu, name, interpreted

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return int(self._interpreted.max_dynamic_shared_size_bytes)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size_bytes: int) -> None:
        self._interpreted.max_dynamic_shared_size_bytes = size_bytes

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        assert stream is not None, "the pipeline names its stream at every launch"
        self._gpu.launched.append(self._name)
        blocks = self._gpu.device_heap.blocks
        stream.add(
            lambda: self._interpreted(
                grid, block, args, shared_mem=shared_mem, allocations=[(at, len(held)) for at, held in blocks.items()]
            )
        )

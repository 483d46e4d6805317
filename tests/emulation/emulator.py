"""What takes the place of `cupy.RawModule` in tests: the same calls, run on the CPU."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from tests.emulation.build import Library, build_library
from tests.emulation.memory import FakeDeviceArray, Memory

MAX_SITES = 256
NO_SITE = -1
DEFAULT_SHARED_BYTES = 48 * 1024  # a kernel gets more only after it was asked for


class Request(ctypes.Structure):
    """Mirrors emulation::Request."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("seed", ctypes.c_uint32),
        ("skip_site", ctypes.c_int32),
    )


class Report(ctypes.Structure):
    """Mirrors emulation::Report."""

    _fields_ = (
        ("error", ctypes.c_char * 256),
        ("fault_address", ctypes.c_uint64),
        ("switch_count", ctypes.c_uint64),
        ("site_lines", ctypes.c_uint32 * MAX_SITES),
        ("site_files", ctypes.c_char_p * MAX_SITES),
    )


class Argument(ctypes.Structure):
    """Mirrors emulation::Argument."""

    _fields_ = (("value", ctypes.c_void_p), ("bytes", ctypes.c_uint32), ("is_float", ctypes.c_uint32))


class LaunchError(RuntimeError):
    """What a launch did wrong; a RuntimeError, as CuPy's own errors of the driver are."""


class Emulator:
    """Runs kernels on the CPU. `make_module` goes where `cupy.RawModule` does.

    Attributes:
        seed: the order in which the threads of a block get their turn: 0 by number and 1 backwards, one warp as far as
            it gets before another; others at random.
        left_out: a barrier (library, site) that is treated as if it were not there, or None.
        reached: the barriers that some thread came to so far: (library, site) -> "file:line".
        switch_count: how often a thread gave its turn to another so far.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.seed = 0
        self.left_out: tuple[str, int] | None = None
        self.reached: dict[tuple[str, int], str] = {}
        self.switch_count = 0

    def make_module(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> "EmulatedModule":
        """Compile `code` with the defines of `options`.

        Raises:
            SourceError: it does not compile.
        """
        if backend != "nvrtc":
            raise ValueError(f"backend is {backend!r}; kernels are compiled by 'nvrtc'")
        return EmulatedModule(self, build_library(code, options, self._cache))


class EmulatedModule:
    """As `cupy.RawModule`."""

    def __init__(self, emulator: Emulator, library: Library) -> None:
        self._emulator = emulator
        self._library = library
        self._loaded = ctypes.CDLL(str(library.path))

    def get_function(self, name: str) -> "EmulatedFunction":
        if name not in self._library.entries:
            raise LaunchError(f"there is no kernel '{name}'; the source has {', '.join(self._library.entries)}")
        launch = getattr(self._loaded, f"ndp_rt_launch_{name}")
        launch.restype = None
        return EmulatedFunction(self._emulator, self._library.path.stem, name, launch)


class EmulatedFunction:
    """As `cupy.RawKernel`: arguments are NumPy scalars, and addresses or device arrays."""

    def __init__(self, emulator: Emulator, library: str, name: str, launch: Any) -> None:
        self._emulator = emulator
        self._library = library
        self._name = name
        self._launch = launch
        self.max_dynamic_shared_size_bytes = DEFAULT_SHARED_BYTES

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        """Run the kernel to its end; `stream` is of no matter.

        Raises:
            LaunchError: sizes that no GPU takes, arguments that do not fit, or what a thread did wrong.
        """
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise LaunchError(
                f"{self._name}: {shared_mem} bytes of dynamic shared memory, {self.max_dynamic_shared_size_bytes} "
                "are allowed; set max_dynamic_shared_size_bytes first"
            )
        emulator = self._emulator
        own_site = emulator.left_out is not None and emulator.left_out[0] == self._library
        request = Request(
            grid=(*grid, 1, 1)[:3],
            block=(*block, 1, 1)[:3],
            shared_bytes=shared_mem,
            seed=emulator.seed,
            skip_site=emulator.left_out[1] if emulator.left_out and own_site else NO_SITE,
        )
        report = Report()
        values = [_hold(argument) for argument in args]
        packed = (Argument * len(values))(
            *((ctypes.addressof(value), size, is_float) for value, size, is_float in values)
        )
        self._launch(ctypes.byref(request), ctypes.byref(report), packed, ctypes.c_size_t(len(values)))
        emulator.switch_count += report.switch_count
        for site, line in enumerate(report.site_lines):
            if line:
                emulator.reached[self._library, site] = f"{report.site_files[site].decode()}:{line}"
        self._check(report)

    def _check(self, report: Report) -> None:
        if report.error:
            place = _describe_address(report.fault_address) if report.fault_address else ""
            raise LaunchError(f"{self._name}: {report.error.decode()}{place}")
        if any(memory.is_damaged() for memory in Memory.list_living()):
            raise LaunchError(f"{self._name}: something was written beside a device array")


def _hold(argument: Any) -> tuple[Any, int, int]:
    """Return the argument's value as a C object, its size and whether it is a floating-point number."""
    if isinstance(argument, FakeDeviceArray):
        argument = argument.data.ptr
    if type(argument) is int:  # as CuPy: 8 bytes, right for an address only
        return ctypes.c_int64(argument), 8, 0
    if not isinstance(argument, np.number):
        raise LaunchError(f"argument: expected a NumPy scalar or a device address, got {type(argument).__name__}")
    buffer = (ctypes.c_char * argument.nbytes).from_buffer_copy(argument.tobytes())
    return buffer, argument.nbytes, int(isinstance(argument, np.floating))


def _describe_address(address: int) -> str:
    """Say where an address lies, seen from the nearest device array."""
    living = Memory.list_living()
    if not living:
        return f", at {address:#x}"
    nearest = min(living, key=lambda memory: abs(address - memory.address))
    end = nearest.address + nearest.bytes.size
    if address >= end:
        return f", {address - end} bytes past the end of an array of {nearest.bytes.size} bytes"
    return f", {nearest.address - address} bytes before the start of an array of {nearest.bytes.size} bytes"

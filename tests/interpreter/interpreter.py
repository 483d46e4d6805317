"""What takes the place of `cupy.RawModule` in tests: the same calls, run on the CPU."""

import ctypes
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.kernels.flags import SHARED_LIMIT_BYTES
from tests.interpreter.build import build_interpreter
from tests.interpreter.memory import FakeDeviceArray, Memory
from tests.kernels.nvrtc import compile_to_ptx

NO_BARRIER = 2**32 - 1
ERROR_BYTES, DESCRIPTION_BYTES = 1024, 2**16
DEFAULT_SHARED_BYTES = 48 * 1024  # a kernel gets more only after it was asked for
ARCHITECTURE = 90


class Launch(ctypes.Structure):
    """Mirrors ptx::Launch."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("max_steps", ctypes.c_uint64),
        ("seed", ctypes.c_uint32),
        ("left_out", ctypes.c_uint32),
    )


class LaunchError(RuntimeError):
    """What a launch did wrong; a RuntimeError, as CuPy's own errors of the driver are."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A kernel of a module.

    Attributes:
        max_threads: of a block.
        shared_bytes: of static shared memory.
        parameters: kind and size of each: u8 is an integer or address of 8 bytes, f4 a float of 4.
        barriers: "file:line" of each barrier.
    """

    max_threads: int
    shared_bytes: int
    parameters: tuple[str, ...]
    barriers: tuple[str, ...]


class Interpreter:
    """Runs kernels on the CPU. `make_module` goes where `cupy.RawModule` does.

    Attributes:
        seed: the order in which the warps of a block get their turn: 0 by number and 1 backwards, one warp as far as
            it gets before another; others at random.
        left_out: a barrier (module, kernel, number) that is treated as if it were not there, or None.
        max_steps: instructions of a launch's warps, after which it is taken to run for ever.
        reached: the barriers that some thread came to so far: (module, kernel, number) -> "file:line".
    """

    def __init__(self, cache_folder: Path, architecture: int = ARCHITECTURE) -> None:
        """Prepare to run what is compiled for one compute capability, and kept in `cache_folder`."""
        self._cache = cache_folder
        self.architecture = architecture
        self.seed = 0
        self.max_steps = 2**31
        self.left_out: tuple[str, str, int] | None = None
        self.reached: dict[tuple[str, str, int], str] = {}

    def make_module(self, *, code: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> "InterpretedModule":
        """Compile `code`.

        Raises:
            AssertionError: it does not compile.
            LaunchError: the interpreter does not know what the compiler made of it.
        """
        if backend != "nvrtc":
            raise ValueError(f"backend is {backend!r}; kernels are compiled by 'nvrtc'")
        options = tuple(option for option in options if not option.startswith("-I"))
        name = hashlib.sha256(repr((code, options, self.architecture)).encode()).hexdigest()[:32]
        path = self._cache / f"{name}.ptx"
        if not path.exists():
            text = compile_to_ptx(code, options, self.architecture)
            self._cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{np.random.default_rng().integers(2**62)}")
            partial.write_text(text)
            partial.replace(path)
        return self.read_text(path.read_text())

    def read_text(self, text: str) -> "InterpretedModule":
        """Return the kernels of PTX.

        Raises:
            LaunchError: the interpreter does not know something in it.
        """
        return InterpretedModule(self, load_text(self._cache, text), hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A text that the interpreter has read."""

    library: ctypes.CDLL
    handle: int
    entries: dict[str, Entry]


@cache
def load_text(cache_folder: Path, text: str) -> Loaded:
    """Read PTX, once for each text.

    Raises:
        LaunchError: something in it is not known.
    """
    library = load_interpreter(cache_folder)
    error = ctypes.create_string_buffer(ERROR_BYTES)
    handle = library.ptx_load(text.encode(), error, ctypes.c_size_t(ERROR_BYTES))
    if not handle:
        raise LaunchError(f"the interpreter does not take this PTX: {error.value.decode()}")
    description = ctypes.create_string_buffer(DESCRIPTION_BYTES)
    library.ptx_describe(ctypes.c_void_p(handle), description, ctypes.c_size_t(DESCRIPTION_BYTES))
    entries = {}
    for line in description.value.decode().splitlines():
        name, max_threads, shared_bytes, parameters, *barriers = line.split()
        entries[name] = Entry(
            max_threads=int(max_threads),
            shared_bytes=int(shared_bytes),
            parameters=tuple(parameters.strip("()").split(",")[:-1]),
            barriers=tuple(barriers),
        )
    return Loaded(library=library, handle=handle, entries=entries)


@cache
def load_interpreter(cache_folder: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(build_interpreter(cache_folder)))
    library.ptx_load.restype = ctypes.c_void_p
    library.ptx_describe.restype = None
    return library


class InterpretedModule:
    """As `cupy.RawModule`."""

    def __init__(self, interpreter: Interpreter, loaded: Loaded, name: str) -> None:
        self._interpreter, self._loaded, self._name = interpreter, loaded, name

    def get_function(self, name: str) -> "InterpretedFunction":
        if name not in self._loaded.entries:
            raise LaunchError(f"there is no kernel '{name}'; the source has {', '.join(self._loaded.entries)}")
        return InterpretedFunction(self._interpreter, self._loaded, self._name, name)


class InterpretedFunction:
    """As `cupy.RawKernel`: arguments are NumPy scalars, and addresses or device arrays."""

    def __init__(self, interpreter: Interpreter, loaded: Loaded, module: str, name: str) -> None:
        self._interpreter, self._loaded, self._module, self._name = interpreter, loaded, module, name
        self._entry = loaded.entries[name]
        self.max_dynamic_shared_size_bytes = DEFAULT_SHARED_BYTES

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_mem: int = 0,
        stream: Any = None,
        allocations: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Run the kernel to its end; `stream` is of no matter.

        Args:
            allocations: address and bytes of what the kernel may reach beside the arrays of `memory`.

        Raises:
            LaunchError: sizes that no GPU takes, arguments that do not fit, or what a thread did wrong.
        """
        sizes = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        self._check_sizes(*sizes, shared_mem)
        values = self._hold_arguments(args)
        regions = np.array(sorted({*Memory.list_living(), *allocations}), np.uint64).ravel()
        own = self._interpreter.left_out
        left_out = own[2] if own is not None and own[:2] == (self._module, self._name) else NO_BARRIER
        launch = Launch(*sizes, shared_mem, self._interpreter.max_steps, self._interpreter.seed, left_out)
        reached = np.zeros(max(1, len(self._entry.barriers)), np.uint8)
        error = ctypes.create_string_buffer(ERROR_BYTES)
        failed = self._loaded.library.ptx_run(
            ctypes.c_void_p(self._loaded.handle),
            self._name.encode(),
            ctypes.byref(launch),
            (ctypes.c_uint64 * len(values))(*values),
            ctypes.c_void_p(regions.ctypes.data),
            ctypes.c_size_t(len(regions) // 2),
            ctypes.c_void_p(reached.ctypes.data),
            error,
            ctypes.c_size_t(ERROR_BYTES),
        )
        for number, place in enumerate(self._entry.barriers):
            if reached[number]:
                self._interpreter.reached[self._module, self._name, number] = place
        if failed:
            raise LaunchError(f"{self._name}: {error.value.decode(errors='replace')}")

    def _check_sizes(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        limit = SHARED_LIMIT_BYTES[self._interpreter.architecture]
        for is_wrong, message in (
            (min(grid) < 1 or min(block) < 1, "an empty grid or block"),
            (grid[0] >= 2**31 or max(grid[1:]) > 65535, f"a grid beyond what a GPU takes: {list(grid)}"),
            (block[2] > 64 or np.prod(block) > 1024, f"a block beyond what a GPU takes: {list(block)}"),
            (np.prod(block) > self._entry.max_threads, "more threads in a block than its __launch_bounds__"),
            (
                shared_mem > self.max_dynamic_shared_size_bytes,
                f"{shared_mem} bytes of dynamic shared memory, {self.max_dynamic_shared_size_bytes} are allowed; set "
                "max_dynamic_shared_size_bytes first",
            ),
            (self._entry.shared_bytes + shared_mem > limit, "more dynamic shared memory than the kernel can have"),
        ):
            if is_wrong:
                raise LaunchError(f"{self._name}: {message}")

    def _hold_arguments(self, args: tuple[Any, ...]) -> list[int]:
        wanted = self._entry.parameters
        if len(args) != len(wanted):
            raise LaunchError(f"{self._name}: another number of arguments: expected {len(wanted)}, got {len(args)}")
        values = []
        for index, (argument, kind) in enumerate(zip(args, wanted, strict=True)):
            value, given = _hold(argument)
            if given != kind:
                raise LaunchError(f"{self._name}: argument {index} has another size or kind: {given}, not {kind}")
            values.append(value)
        return values


def _hold(argument: Any) -> tuple[int, str]:
    """Return the argument's bits, and its kind as in `Entry.parameters`."""
    if isinstance(argument, FakeDeviceArray):
        argument = argument.data.ptr
    if type(argument) is int:  # as CuPy: 8 bytes, right for an address only
        return argument % 2**64, "u8"
    if not isinstance(argument, np.number):
        raise LaunchError(f"argument: expected a NumPy scalar or a device address, got {type(argument).__name__}")
    is_float = isinstance(argument, np.floating)
    return int.from_bytes(argument.tobytes(), "little"), f"{'f' if is_float else 'u'}{argument.nbytes}"

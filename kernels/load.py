"""Compiles kernels on first use and keeps them; through CuPy, or through what a test puts in its place."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ndp_rt.config import find_cuda_toolkits
from ndp_rt.errors import DeviceError, EngineError, MissingExtraError
from ndp_rt.kernels.flags import make_options
from ndp_rt.kernels.source import read_source

REMEDY = "pip install 'ndp-rt[gpu]' (CUDA 12) or 'ndp-rt[gpu13]' (CUDA 13), on a machine with an NVIDIA GPU"
# A folder with one of them is one of CUDA's: packages for CUDA 12 have them in two.
HEADERS = ("cuda_fp16.h", "crt/mma.h")
MISSING_HEADER = re.compile(r'(?:could not|cannot) open source file "(?P<name>[^"]+)"')
CUDA_VERSION = re.compile(r"#define\s+CUDA_VERSION\s+(\d+)")
DEFAULT_SHARED_BYTES = 48 * 1024  # of dynamic shared memory; more has to be asked for


# Compiles a source as `cupy.RawModule` does, whose `get_function` gives kernels as `cupy.RawKernel`.
MakeModule = Callable[..., Any]


class Kernel:
    """One kernel, ready to be launched; every launch is checked."""

    def __init__(self, entry: str, function: Any) -> None:
        self._entry = entry
        self._function = function
        self._shared_bytes = DEFAULT_SHARED_BYTES

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_mem: int = 0,
        stream: Any = None,
    ) -> None:
        """Put one launch on a stream and return before it is done.

        Args:
            grid: blocks along x, y and z; trailing ones may be left out.
            block: threads, likewise.
            args: NumPy scalars of the parameters' exact types, and device addresses.
            shared_mem: dynamic shared memory in bytes.
            stream: a CuPy stream; None is CuPy's current one.

        Raises:
            DeviceError: the driver refuses the launch, or reports what an earlier one did.
        """
        try:
            if shared_mem > self._shared_bytes:
                self._function.max_dynamic_shared_size_bytes = shared_mem
                self._shared_bytes = shared_mem
            self._function(grid, block, args, shared_mem=shared_mem, stream=stream)
        except RuntimeError as error:  # CuPy's errors of driver and runtime are RuntimeErrors
            raise DeviceError(
                f"kernel '{self._entry}' could not be launched (grid {list(grid)}, block {list(block)}, "
                f"{shared_mem} bytes of shared memory): {error}"
            ) from error


class KernelSet:
    """The kernels of one device, each compiled when it is first asked for."""

    def __init__(self, make_module: MakeModule | None = None) -> None:
        """Prepare; `make_module` None means CuPy, which is imported at the first `function`."""
        self._make_module = make_module or compile_with_cupy
        self._modules: dict[tuple[str, tuple[tuple[str, int], ...]], Any] = {}
        self._kernels: dict[tuple[str, str, tuple[tuple[str, int], ...]], Kernel] = {}

    def function(self, file: str, entry: str, defines: Mapping[str, int] | None = None) -> Kernel:
        """Return the kernel `entry` of `file` (see `read_source`), compiled with `defines`.

        Raises:
            InputError: there is no such file.
            MissingExtraError: CuPy is not installed.
            DeviceError: there is no GPU, or its driver is too old.
            EngineError: the source does not compile.
        """
        macros = tuple(sorted((defines or {}).items()))
        kernel = self._kernels.get((file, entry, macros))
        if kernel is None:
            kernel = Kernel(entry, self._load(file, macros).get_function(entry))
            self._kernels[file, entry, macros] = kernel
        return kernel

    def _load(self, file: str, macros: tuple[tuple[str, int], ...]) -> Any:
        module = self._modules.get((file, macros))
        if module is None:
            source = read_source(file)
            options = make_options(dict(macros), source.sha256)
            module = self._make_module(code=source.text, options=options, backend="nvrtc")
            self._modules[file, macros] = module
        return module


def compile_with_cupy(*, code: str, options: tuple[str, ...], backend: str) -> Any:
    """Compile a source for the current device.

    Raises:
        MissingExtraError: CuPy, or a header of CUDA, is not installed.
        DeviceError: there is no GPU, or its driver is too old.
        EngineError: the source does not compile.
    """
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError(
            f"CUDA kernels need CuPy, which cannot be imported ({error}). Install it: {REMEDY}."
        ) from error
    folders = find_include_folders(int(cupy.cuda.runtime.runtimeGetVersion()) // 1000)
    options = (*options, *(f"-I{folder}" for folder in folders))
    module = cupy.RawModule(code=code, options=options, backend=backend)
    try:
        module.compile()
    except RuntimeError as error:
        raise DeviceError(
            f"kernels cannot be compiled for this machine's GPU: {error}. "
            "An NVIDIA GPU is needed, and a driver as new as CuPy's CUDA; ndp-rt doctor shows both."
        ) from error
    except cupy.cuda.compiler.CompileException as error:
        missing = MISSING_HEADER.search(str(error))
        if missing is not None:
            raise _no_header(missing["name"], folders) from error
        raise EngineError(f"a kernel does not compile:\n{error}") from error
    return module


def find_include_folders(cuda_major: int) -> list[Path]:
    """Return the folders with CUDA's headers: packages share them out among several, of which CuPy looks into one.

    First those of packages, wherever Python finds such, then those of toolkits; none that is of another CUDA.

    Args:
        cuda_major: 12 for CUDA 12.
    """
    packages = [package for entry in sys.path for package in sorted(Path(entry).glob("nvidia/cu*"))]
    folders = dict.fromkeys(root / "include" for root in (*packages, *find_cuda_toolkits()))
    return [
        folder
        for folder in folders
        if any((folder / name).is_file() for name in HEADERS) and _read_major(folder) in (None, cuda_major)
    ]


def _read_major(folder: Path) -> int | None:
    """Return the version of CUDA that headers are of; None where they do not say."""
    header = folder / "cuda.h"
    found = CUDA_VERSION.search(header.read_text(errors="replace")) if header.is_file() else None
    return None if found is None else int(found[1]) // 1000


def _no_header(name: str, folders: list[Path]) -> MissingExtraError:
    packages = ("nvidia-cuda-crt", "nvidia-cuda-nvcc-cu12")
    if not name.startswith("crt/"):
        packages = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")
    places = ", ".join(map(str, folders)) or "no folder with headers of CUDA"
    return MissingExtraError(
        f"kernels: expected CUDA's header {name} to be installed, found {places}. Install it: "
        f"pip install {packages[0]} (CUDA 13) or {packages[1]} (CUDA 12)."
    )

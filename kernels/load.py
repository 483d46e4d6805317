"""Compiles kernels on first use and keeps them; through CuPy, or through what a test puts in its place."""

from collections.abc import Callable, Mapping
from typing import Any

from ndp_rt.errors import DeviceError, EngineError, MissingExtraError
from ndp_rt.kernels.flags import make_options
from ndp_rt.kernels.source import read_source

REMEDY = "pip install 'ndp-rt[gpu]' (CUDA 12) or 'ndp-rt[gpu13]' (CUDA 13), on a machine with an NVIDIA GPU"
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
        MissingExtraError: CuPy is not installed.
        DeviceError: there is no GPU, or its driver is too old.
        EngineError: the source does not compile.
    """
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError(
            f"CUDA kernels need CuPy, which cannot be imported ({error}). Install it: {REMEDY}."
        ) from error
    module = cupy.RawModule(code=code, options=options, backend=backend)
    try:
        module.compile()
    except RuntimeError as error:
        raise DeviceError(
            f"kernels cannot be compiled for this machine's GPU: {error}. "
            "An NVIDIA GPU is needed, and a driver as new as CuPy's CUDA; ndp-rt doctor shows both."
        ) from error
    except cupy.cuda.compiler.CompileException as error:
        raise EngineError(f"a kernel does not compile:\n{error}") from error
    return module

"""Loading kernels: lazily, once, through CuPy's interface, with errors that say what to do."""

import importlib.util
import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from ndp_rt.devices.machine import find_gpus
from ndp_rt.errors import DeviceError, EngineError, InputError
from ndp_rt.kernels.load import Kernel, KernelSet, compile_with_cupy

has_cupy = importlib.util.find_spec("cupy") is not None
needs_cupy = pytest.mark.skipif(not has_cupy, reason="needs CuPy: pip install 'ndp-rt[test]' on x86-64 Linux")
no_gpu = pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU; what happens without one is tested")


class FakeFunction:
    """Stands for `cupy.RawKernel`; keeps what it was called with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.max_dynamic_shared_size_bytes = 0
        self.calls: list[tuple[Any, ...]] = []
        self._error = error

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0, stream: Any = None) -> None:
        if self._error:
            raise self._error
        self.calls.append((grid, block, args, shared_mem, stream))


class FakeModules:
    """Stands for `cupy.RawModule`; keeps what was compiled."""

    def __init__(self) -> None:
        self.compiled: list[dict[str, Any]] = []
        self.names: list[str] = []

    def __call__(self, **arguments: Any) -> "FakeModules":
        self.compiled.append(arguments)
        return self

    def get_function(self, name: str) -> FakeFunction:
        self.names.append(name)
        return FakeFunction()


def test_a_kernel_is_compiled_when_first_asked_for_and_once() -> None:
    modules = FakeModules()
    kernels = KernelSet(modules)
    assert modules.compiled == []
    first = kernels.function("score/score.cu", "score", {"A": 1})
    assert kernels.function("score/score.cu", "score", {"A": 1}) is first
    kernels.function("score/score.cu", "other", {"A": 1})
    assert len(modules.compiled) == 1 and modules.names == ["score", "other"]
    kernels.function("score/score.cu", "score")
    assert len(modules.compiled) == 2
    assert "score(const float*" in modules.compiled[0]["code"]
    assert "-DA=1" in modules.compiled[0]["options"] and modules.compiled[0]["backend"] == "nvrtc"
    with pytest.raises(InputError, match="the kernel file 'absent.cu'"):
        kernels.function("absent.cu", "absent")


def test_a_launch_passes_everything_on() -> None:
    function = FakeFunction()
    args = (np.int32(1),)
    Kernel("k", function)((1, 2), (32,), args, 16, "stream")
    assert function.calls == [((1, 2), (32,), args, 16, "stream")]
    assert function.max_dynamic_shared_size_bytes == 0


def test_shared_memory_beyond_the_default_is_asked_for_once() -> None:
    function = FakeFunction()
    kernel = Kernel("k", function)
    kernel((1,), (32,), (), shared_mem=50_000)
    assert function.max_dynamic_shared_size_bytes == 50_000
    function.max_dynamic_shared_size_bytes = 0
    kernel((1,), (32,), (), shared_mem=49_500)
    assert function.max_dynamic_shared_size_bytes == 0


def test_a_refused_launch_names_the_kernel_and_its_sizes() -> None:
    kernel = Kernel("smooth", FakeFunction(RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")))
    with pytest.raises(
        DeviceError, match=r"'smooth' .*grid \[1, 2\], block \[64\], 8 bytes of shared memory\): CUDA_ERROR_INVALID"
    ):
        kernel((1, 2), (64,), (), shared_mem=8)


def test_without_cupy_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "from ndp_rt.kernels.load import KernelSet\n"
        "try: KernelSet().function('score/score.cu', 'score')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("MissingExtraError CUDA kernels need CuPy"), done.stderr
    assert "ndp-rt[gpu]" in done.stdout


class RefusingModule:
    """A module whose compiler gives up."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, **arguments: Any) -> "RefusingModule":
        return self

    def compile(self) -> None:
        raise self._error


@needs_cupy
def test_what_the_compiler_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    refuse = cupy.cuda.compiler.CompileException
    monkeypatch.setattr(cupy, "RawModule", RefusingModule(refuse("k.cu(1): error: no", "", "k.cu", (), "nvrtc")))
    with pytest.raises(EngineError, match="does not compile:\nk.cu"):
        compile_with_cupy(code="", options=(), backend="nvrtc")


@needs_cupy
@no_gpu
def test_without_a_gpu_cupys_error_becomes_ours() -> None:
    with pytest.raises(DeviceError, match=r"this machine's GPU: cuda.*driver"):
        KernelSet().function("score/score.cu", "score")


@needs_cupy
def test_cupy_has_the_interface_that_is_used() -> None:
    import cupy

    module = cupy.RawModule(code="", options=("-std=c++17",), backend="nvrtc")  # compiles nothing yet
    assert callable(module.get_function) and callable(module.compile)
    assert inspect.isdatadescriptor(cupy.RawKernel.max_dynamic_shared_size_bytes)
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(cupy.cuda.driver.CUDADriverError, RuntimeError)
    assert not issubclass(cupy.cuda.compiler.CompileException, RuntimeError)


@needs_cupy
@no_gpu
def test_cupys_launch_takes_the_arguments_that_are_passed() -> None:
    import cupy

    launch = cupy.cuda.function.Function.__new__(cupy.cuda.function.Function)
    with pytest.raises(RuntimeError, match="cuda"):  # the arguments are read, then the driver is missing
        launch((1,), (1,), (), shared_mem=0, stream=None)
    with pytest.raises(TypeError, match="other"):
        launch((1,), (1,), (), shared_mem=0, stream=None, other=None)


@pytest.mark.gpu
def test_a_kernel_runs_on_the_gpu() -> None:
    import cupy

    out = cupy.zeros((1, 2, 2), cupy.uint8)
    maps, limits = cupy.arange(4, dtype=cupy.float32).reshape(1, 1, 2, 2), cupy.full(1, 2, cupy.float32)
    kernel = KernelSet().function("score/score.cu", "score")
    kernel((1, 1), (256,), (maps, limits, out, np.uint32(4)), stream=cupy.cuda.get_current_stream())
    assert out.get().ravel().tolist() == [0, 0, 1, 1]

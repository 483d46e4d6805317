"""Where kernels run in tests: in the interpreter everywhere, and on a GPU where there is one."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from ndp_rt.kernels.load import KernelSet
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import copy_to_device, make_empty


class Device(Protocol):
    """Arrays and kernels of one device; arrays come back to the host with their own `get()`."""

    kernels: KernelSet

    def copy(self, host: NDArray[Any]) -> Any:
        """Return a dense device array with the values of `host`."""
        ...

    def make_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return a dense device array that holds NaN (integers: all bits set)."""
        ...


class InterpretedDevice:
    """The interpreter."""

    copy = staticmethod(copy_to_device)
    make_empty = staticmethod(make_empty)

    def __init__(self, kernels: KernelSet) -> None:
        self.kernels = kernels


class CupyDevice:
    """CuPy's current GPU."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self.kernels = KernelSet()

    def copy(self, host: NDArray[Any]) -> Any:
        return self._cupy.asarray(np.ascontiguousarray(host))

    def make_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        array = self._cupy.empty(shape, dtype)
        array.view(np.uint8)[...] = 0xFF
        return array


ARCHITECTURES = (
    "sm75",
    "sm90",
    "sm120",
)  # the compiler treats each in its own way


def make_device(request: pytest.FixtureRequest) -> Device:
    """Return the GPU for "gpu", and else the interpreter of what is compiled for an architecture."""
    if request.param == "gpu":
        return CupyDevice()  # on a machine that may have nothing to interpret with
    cache: Path = request.getfixturevalue("interpreter_cache")
    return InterpretedDevice(KernelSet(Interpreter(cache, int(request.param[2:])).make_module))


@pytest.fixture(params=[*ARCHITECTURES, pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """A device that runs kernels: each test that takes it runs for every architecture, and on the GPU."""
    return make_device(request)

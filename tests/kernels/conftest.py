"""Where kernels run in tests: on the CPU everywhere, and on a GPU where there is one."""

from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from ndp_rt.kernels.load import KernelSet
from tests.emulation.memory import copy_to_device, make_empty


class Device(Protocol):
    """Arrays and kernels of one device; arrays come back to the host with their own `get()`."""

    kernels: KernelSet

    def copy(self, host: NDArray[Any]) -> Any:
        """Return a dense device array with the values of `host`."""
        ...

    def make_empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return a dense device array that holds NaN (integers: all bits set)."""
        ...


class EmulatedDevice:
    """The CPU."""

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


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """A device that runs kernels: each test that takes it runs once on the CPU and once on the GPU."""
    return CupyDevice() if request.param == "gpu" else EmulatedDevice(request.getfixturevalue("kernels"))

"""A fake GPU in CuPy's place."""

import sys
from collections.abc import Callable

import pytest

from tests.fakes.fake_cupy import FakeCuda


@pytest.fixture
def install_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCuda], FakeCuda]:
    """Put a fake GPU in CuPy's place until the test ends."""

    def install(gpu: FakeCuda) -> FakeCuda:
        monkeypatch.setitem(sys.modules, "cupy", gpu.module)
        return gpu

    return install


@pytest.fixture
def gpu(install_gpu: Callable[[FakeCuda], FakeCuda]) -> FakeCuda:
    return install_gpu(FakeCuda(memory_bytes=2**20))

"""Fixtures that every test may use, and the skips for what this machine lacks."""

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from ndp_rt.devices.machine import Gpu, find_gpus
from ndp_rt.engines import build, registry, worker
from ndp_rt.kernels.load import KernelSet
from tests.emulation.build import find_reason_not_to_build
from tests.emulation.emulator import Emulator
from tests.fakes.fake_backend import FakeDeviceBackend
from tests.fakes.fake_cupy import FakeCuda

TORCH_REMEDY = (
    "needs PyTorch: pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu, "
    "then pip install -e '.[train]'"
)
GPU_REMEDY = "needs an NVIDIA GPU and CuPy: pip install 'ndp-rt[gpu13]' on a machine with a driver"
TENSORRT_REMEDY = "needs TensorRT and an NVIDIA GPU: pip install 'ndp-rt[gpu13]' on a machine with a driver"


def is_installed(module: str) -> bool:
    """Tell whether `module` could be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def find_remedies() -> dict[str, str]:
    """Return, for each marker whose tests cannot run here, the reason that the skip names."""
    remedies = {}
    if not is_installed("torch"):
        remedies["torch"] = TORCH_REMEDY
    has_gpu = is_installed("cupy") and bool(find_gpus())  # CuPy imports without a GPU, and the tests install it
    if not has_gpu:
        remedies["gpu"] = GPU_REMEDY
    if not (is_installed("tensorrt") and has_gpu):
        remedies["tensorrt"] = TENSORRT_REMEDY
    return remedies


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Skip the marked tests whose packages are missing, each with the command that gets them."""
    remedies = find_remedies()
    for item in items:
        for marker, remedy in remedies.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=remedy))


class TorchAwareModule(pytest.Module):
    """A test module that is skipped, not broken, when an import at its top fails for want of PyTorch."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            if "No module named 'torch'" in str(error):
                pytest.skip(TORCH_REMEDY, allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect through TorchAwareModule where PyTorch is missing; leave the rest to pytest."""
    if "torch" not in find_remedies():
        return None
    return TorchAwareModule.from_parent(parent, path=module_path)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers at every run, others in every test."""
    return np.random.default_rng(crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def emulation_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where built kernels are kept: with pytest's cache from run to run, or for this run where it has none."""
    reason = find_reason_not_to_build()
    if reason is not None:
        pytest.skip(reason)
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("emulation") if cache is not None else tmp_path_factory.mktemp("emulation")


@pytest.fixture
def emulator(emulation_cache: Path) -> Emulator:
    """Runs CUDA kernels on the CPU."""
    return Emulator(emulation_cache)


@pytest.fixture
def kernels(emulator: Emulator) -> KernelSet:
    """The kernels, compiled for the CPU."""
    return KernelSet(emulator.make_module)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The path of a very small bundle; not to be changed. Engines go to a cache of the session's own."""
    from tests.tiny_bundle import make_tiny_bundle

    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(folder / "cache"))
        yield make_tiny_bundle(folder / "tiny.ndp").path


@pytest.fixture
def fake_gpu(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with one fake GPU, a backend "fake" for it, and a builder that runs in this process."""
    gpu = FakeCuda(emulator.make_module)
    backend = FakeDeviceBackend(gpu.machine)
    found = Gpu(name="Fake GPU", index=0, memory_bytes=2**31, compute_capability="9.0")
    monkeypatch.setitem(sys.modules, "cupy", gpu.module)
    monkeypatch.setattr("ndp_rt.devices.machine.find_gpus", lambda: (found,))
    monkeypatch.setitem(registry.DEVICE_BACKENDS, "fake", backend)
    monkeypatch.setitem(registry.ALL_BACKENDS, "fake", backend)
    monkeypatch.setattr(build, "_run_worker", lambda job, progress: worker.build(job, progress))
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    return gpu

"""Fixtures that every test may use, and which tests a run takes and leaves out."""

import importlib.util
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pytest

from ndp_rt.devices.machine import Gpu, find_gpus
from ndp_rt.engines import build, registry, worker
from ndp_rt.kernels.load import KernelSet
from tests import selection
from tests.fakes.fake_backend import FakeDeviceBackend
from tests.fakes.fake_cupy import FakeCuda
from tests.interpreter.build import find_reason_not_to_run
from tests.interpreter.interpreter import ARCHITECTURE, Interpreter

if TYPE_CHECKING:
    from tests.capi.library import Library

LEFT_OUT = pytest.StashKey[Counter[str]]()  # how many tests, by the reason
START_S = pytest.StashKey[float]()
OUR_PACKAGES = ("ndp_rt", "tests")
TORCH_REMEDY = (
    "needs PyTorch: pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu, "
    "then pip install -e '.[train]'"
)
GPU_REMEDY = "needs an NVIDIA GPU and CuPy: pip install 'ndp-rt[gpu13]' on a machine with a driver"
ENGINE_REMEDIES = {  # by mark, which is the package's name
    "tensorrt": "needs TensorRT and an NVIDIA GPU: pip install 'ndp-rt[gpu13]' on a machine with a driver",
    "tensorrt_rtx": "needs TensorRT-RTX and an NVIDIA GPU: pip install 'ndp-rt[rtx]' on a machine with a driver",
}


def is_installed(module: str) -> bool:
    """Tell whether `module` could be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def find_missing_devices() -> dict[str, str]:
    """Return, for each marker whose tests need a device that is not here, what they need."""
    has_gpu = is_installed("cupy") and bool(find_gpus())  # CuPy imports without a GPU, and the tests install it
    lacking = {name: words for name, words in ENGINE_REMEDIES.items() if not (has_gpu and is_installed(name))}
    return lacking if has_gpu else {"gpu": GPU_REMEDY, **lacking}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ndp-rt")
    group.addoption("--part", choices=selection.PARTS, default="all", help="all tests, the quick part, or the rest")
    group.addoption("--first", default="", metavar="ROOMS", help="run these folders and files of tests/ first: a,b/c")
    group.addoption("--budget-s", type=float, help="leave out the tests that have not begun after so many seconds")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT], config.stash[START_S] = Counter(), time.monotonic()
    if is_installed("hypothesis"):
        from hypothesis import HealthCheck, settings

        settings.register_profile("any load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("any load")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that this run takes, in its order, and skip the ones that lack a package."""
    left_out, missing, runnable = config.stash[LEFT_OUT], find_missing_devices(), []
    for item in items:
        reasons = [remedy for marker, remedy in missing.items() if item.get_closest_marker(marker)]
        left_out.update(reasons[:1])
        runnable += [] if reasons else [item]
    part = config.getoption("part")
    kept = selection.select(runnable, part)
    if len(kept) < len(runnable):
        left_out[f"make {'test' if part == 'rest' else 'test-all'} runs them"] = len(runnable) - len(kept)
    taken = {id(item) for item in kept}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in taken])
    items[:] = selection.sort_by_rooms(kept, [room for room in config.getoption("first").split(",") if room])
    if not is_installed("torch"):
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason=TORCH_REMEDY))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out when the time of this run is over."""
    budget_s, config = item.config.getoption("budget_s"), item.config
    if budget_s is not None and time.monotonic() - config.stash[START_S] > budget_s:
        config.stash[LEFT_OUT][f"{selection.name_room(item)}: its turn came after {budget_s:.0f} s"] += 1
        pytest.skip("the time of this run is over")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give what a process of pytest-xdist left out to the one that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process of pytest-xdist left out: of what all leave out alike, once."""
    given = getattr(node, "workeroutput", {}).get("left_out", {})
    left_out = node.config.stash[LEFT_OUT]
    for reason, count in given.items():
        left_out[reason] = left_out[reason] + count if "its turn" in reason else count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason, count in terminalreporter.config.stash[LEFT_OUT].items():
        terminalreporter.write_line(f"LEFT OUT [{count}] {reason}")


class PatientModule(pytest.Module):
    """A test module that is skipped, not broken, when an import at its top fails for want of a package."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        try:
            return super().collect()
        except self.CollectError as error:
            text = str(error)
            found = re.search(r"ModuleNotFoundError: No module named '([^.']+)", text)
            places = re.findall(r"^(\S+\.py):\d+: in ", text, re.MULTILINE)
            is_tests_own = bool(places) and places[-1].startswith("tests")
            is_optional = found is not None and (found[1] == "torch" or (is_tests_own and "CI" not in os.environ))
            if found is None or found[1] in OUR_PACKAGES or not is_optional:
                raise
            remedy = f"needs {found[1]}: pip install -e '.[test]'"
            pytest.skip(TORCH_REMEDY if found[1] == "torch" else remedy, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Collect through PatientModule: machines with a GPU lack most of what the tests take, those of CI nothing."""
    return PatientModule.from_parent(parent, path=module_path)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers at every run, others in every test."""
    return np.random.default_rng(crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def heeds_interrupts() -> Iterator[None]:
    """SIGINT ends this process and what it starts, although a script's background job is told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a new process gets the system's own again
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def interpreter_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the interpreter and compiled kernels are kept.

    With pytest's cache from run to run, or for this run where it has none.
    """
    reason = find_reason_not_to_run()
    if reason is not None:
        pytest.skip(reason)
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("interpreter") if cache is not None else tmp_path_factory.mktemp("interpreter")


@pytest.fixture
def interpreter(request: pytest.FixtureRequest, interpreter_cache: Path) -> Interpreter:
    """Runs CUDA kernels on the CPU; `on_every_architecture` says which a test wants."""
    return Interpreter(interpreter_cache, getattr(request, "param", ARCHITECTURE))


@pytest.fixture
def kernels(interpreter: Interpreter) -> KernelSet:
    """The kernels, in the interpreter."""
    return KernelSet(interpreter.make_module)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The path of a very small bundle; not to be changed. Engines go to a cache of the session's own."""
    from tests.tiny_bundle import make_tiny_bundle

    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(folder / "cache"))
        yield make_tiny_bundle(folder / "tiny.ndp").path


@pytest.fixture(scope="session")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of libndp_rt.so as it is compiled from the sources now: one copy, as a process cannot hold two."""
    from ndp_rt.capi.build import build_library
    from ndp_rt.errors import MissingExtraError

    try:
        return build_library(tmp_path_factory.mktemp("capi"))
    except MissingExtraError as error:
        pytest.skip(f"needs what the C library is built with: {error}")


@pytest.fixture(scope="session")
def library(library_path: Path) -> "Library":
    """The functions of libndp_rt.so, in this process."""
    from tests.capi.library import Library

    return Library(library_path)


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/capi/hosts/steps.c."""
    from tests.capi.programs import compile_host

    return compile_host(["steps.c", "process_changes.c", "process_state.c"], tmp_path_factory.mktemp("steps") / "steps")


@pytest.fixture
def fake_gpu(interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with one fake GPU, a backend "fake" for it, and a builder that runs in this process."""
    gpu = FakeCuda(interpreter.make_module)
    backend = FakeDeviceBackend(gpu.machine)
    found = Gpu(name="Fake GPU", index=0, memory_bytes=2**31, compute_capability="9.0")
    monkeypatch.setitem(sys.modules, "cupy", gpu.module)
    monkeypatch.setattr("ndp_rt.devices.machine.find_gpus", lambda: (found,))
    monkeypatch.setitem(registry.find_built_in(), "fake", backend)
    monkeypatch.setattr(build, "_run_worker", lambda job, progress: worker.build(job, progress))
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    return gpu

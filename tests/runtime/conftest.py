"""Plans of the tiny bundle on the fake GPU, and whole pipelines there and on this machine's GPU."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.engines import build, worker
from ndp_rt.engines.stage_files import write_stages
from tests.bricks import BRICKS
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.rig import Rig
from tests.interpreter.interpreter import Interpreter
from tests.runtime.places import ONE_EACH, Place, build_int8, skip_what_is_not_offered


@pytest.fixture(scope="session")
def stage_folders(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The tiny bundle's typed stages, by plan and precision."""
    root, folders = tmp_path_factory.mktemp("stages"), {}
    for plan, precision in (("staged", "fp32"), ("unmerged", "fp32"), ("fused", "fp32"), ("staged", "fp16")):
        folders[plan, precision] = root / f"{plan}-{precision}"
        write_stages(open_bundle(tiny_bundle), precision, folders[plan, precision], plan=plan)
    return folders


@pytest.fixture
def make_rig(
    tiny_bundle: Path,
    stage_folders: dict[tuple[str, str], Path],
    interpreter: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Rig]:
    def make(plan: str = "staged", batches: tuple[int, ...] = (1,), seed: int = 0, **changes: Any) -> Rig:
        memory_bytes = changes.pop("memory_bytes", 2**28)
        gpu = FakeCuda(interpreter.make_module, seed=seed, memory_bytes=memory_bytes)
        monkeypatch.setitem(sys.modules, "cupy", gpu.module)
        folder = stage_folders[plan, changes.get("precision", "fp32")]
        return Rig(gpu, open_bundle(tiny_bundle), plan, folder, batches, **changes)

    return make


@pytest.fixture(scope="session")
def engines_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the engines of this machine's GPU."""
    return tmp_path_factory.mktemp("gpu-engines")


@pytest.fixture(params=ONE_EACH)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """A GPU with a pipeline for it."""
    pipeline, gpu = request.param, None
    # First: it sets the session's cache, which what is patched for this test would take away with it.
    path = request.getfixturevalue("tiny_bundle") if pipeline.bundle == "tiny" else BRICKS
    if pipeline.backend == "fake":
        gpu = request.getfixturevalue("fake_gpu")
    else:
        skip_what_is_not_offered(pipeline)
        monkeypatch.setenv("NDP_RT_CACHE", str(request.getfixturevalue("engines_of_this_run")))
        # A builder's process takes seconds to load its libraries; one test starts it.
        monkeypatch.setattr(build, "_run_worker", lambda job, progress: worker.build(job, progress))
    made = Place(pipeline, path, gpu)
    if pipeline.precision == "int8":
        build_int8(made, tmp_path / "int8")
    return made

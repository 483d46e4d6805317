"""Plans of the tiny bundle on the fake GPU."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.engines.stage_files import write_stages
from tests.emulation.emulator import Emulator
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.rig import Rig


@pytest.fixture(scope="session")
def stage_folders(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny bundle's typed stages in fp32, by plan."""
    root, folders = tmp_path_factory.mktemp("stages"), {}
    for plan in ("staged", "unmerged", "fused"):
        folders[plan] = root / plan
        write_stages(open_bundle(tiny_bundle), "fp32", folders[plan], plan=plan)
    return folders


@pytest.fixture
def make_rig(
    tiny_bundle: Path, stage_folders: dict[str, Path], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Rig]:
    def make(plan: str = "staged", batches: tuple[int, ...] = (1,), seed: int = 0, **changes: Any) -> Rig:
        memory_bytes = changes.pop("memory_bytes", 2**28)
        gpu = FakeCuda(emulator.make_module, seed=seed, memory_bytes=memory_bytes)
        monkeypatch.setitem(sys.modules, "cupy", gpu.module)
        return Rig(gpu, open_bundle(tiny_bundle), stage_folders[plan], batches, **changes)

    return make

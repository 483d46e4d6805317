"""A model with two assets, of which one is swapped while it runs: the other stays what it was."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector, read_image
from ndp_rt.bundle import Bundle, open_bundle, write_bundle
from ndp_rt.editing import set_reference
from ndp_rt.engines import build, worker
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.kernels import registry
from ndp_rt.kernels.rbfrm.op import RbfrmOp
from ndp_rt.program.program import AssetSpec, Step
from ndp_rt.runtime.cuda import CudaExecutor
from ndp_rt.runtime.open import make_asset_maker
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.rig import Rig
from tests.interpreter.interpreter import Interpreter
from tests.tolerances import assert_close


class MeanOfTwo:
    """RBFRM on the host with the mean of two parts of assets."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.run = inner, inner.run

    def prepare(self, assets: Sequence[np.ndarray]) -> Any:
        swapped, fixed = assets
        return self._inner.prepare([(swapped + fixed) / 2])


class MeanOfTwoOp(RbfrmOp):
    """An op that reads an asset which is swapped, and one which stays."""

    def infer(self, params: Any, reads: Sequence[Any]) -> list[Any]:
        return super().infer(params, reads[:2])

    def make_host(self, params: Any, reads: Sequence[Any]) -> Any:
        return MeanOfTwo(super().make_host(params, reads[:2]))


def read_one_each(step: Step) -> Step:
    """Return a step whose op reads level 5 of the asset that stays, and the others of the one that is swapped."""
    return replace(step, reads=tuple(name.replace("reference.f5", "fixed.f5") for name in step.reads))


def read_both(step: Step) -> Step:
    """Return a step whose op reads its level of both assets."""
    if step.op != "rbfrm":
        return step
    features, part = step.reads
    return replace(step, op="mean_of_two", reads=(features, part, part.replace("reference", "fixed")))


def write_two(tiny_bundle: Path, path: Path, change: Callable[[Step], Step]) -> Bundle:
    """Write the tiny bundle's staged plan with a second asset `fixed`, which holds what the reference does."""
    tiny = open_bundle(tiny_bundle)
    manifest, reference = tiny.manifest, tiny.manifest.assets["reference"]
    fixed = AssetSpec(file="fixed.safetensors", tensors=reference.tensors)
    programs = {
        kind: {"staged": replace(named["staged"], steps=tuple(map(change, named["staged"].steps)))}
        for kind, named in manifest.programs.items()
        if kind == "cpu" or change is read_one_each  # the other op has no form for a GPU
    }
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in manifest.files}
    files[fixed.file] = tiny.path / reference.file
    assets = {"reference": replace(reference, in_graphs={}), "fixed": fixed}  # the staged plan has it in no graph
    return write_bundle(path, manifest_without_files=replace(manifest, assets=assets, programs=programs), files=files)


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """Another reference image as a file, and an image to inspect."""
    good = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "good.png"), good)
    return tmp_path / "good.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("change", [read_one_each, read_both])
def test_the_other_asset_stays_on_a_cpu(
    tiny_bundle: Path,
    tmp_path: Path,
    pictures: tuple[Path, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Step], Step],
) -> None:
    monkeypatch.setattr(registry, "_load_foreign", lambda name: MeanOfTwoOp())
    monkeypatch.setattr(build, "_run_worker", lambda job, progress: worker.build(job, progress))
    good, image = pictures
    bundle = write_two(tiny_bundle, tmp_path / "two.ndp", change)
    with Inspector.open(bundle.path, threads=1) as inspector:
        before = inspector.inspect(image).anomaly_map
        inspector.set_reference(read_image(good))
        found = inspector.inspect(image).anomaly_map
    set_reference(bundle.path, good, threads=1)
    with Inspector.open(bundle.path, threads=1) as inspector:
        expected = inspector.inspect(image).anomaly_map
    assert np.array_equal(found, expected) and not np.array_equal(found, before)


def test_the_other_asset_stays_on_a_gpu(
    tiny_bundle: Path,
    stage_folders: dict[tuple[str, str], Path],
    tmp_path: Path,
    pictures: tuple[Path, np.ndarray],
    interpreter: Interpreter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, image = pictures
    bundle = write_two(tiny_bundle, tmp_path / "two.ndp", read_one_each)
    gpu = FakeCuda(interpreter.make_module, seed=0, memory_bytes=2**28)
    monkeypatch.setitem(sys.modules, "cupy", gpu.module)
    rig = Rig(gpu, bundle, "staged", stage_folders["staged", "fp32"], (1,))
    executor = CudaExecutor(bundle, rig.program, rig.kernels, make_asset_maker(bundle, EngineSpec()), channels="rgb")
    executor.set_asset(read_image(good))
    batch = executor.make_batch()
    executor.start(batch, (image,), 1)
    executor.finish(batch)
    batch.score(0)
    found = batch.read_map(0).copy()
    executor.close()
    with Inspector.open(bundle.path, threads=1) as inspector:
        inspector.set_reference(read_image(good))
        assert_close(found, inspector.inspect(image).anomaly_map, "map", "float32")

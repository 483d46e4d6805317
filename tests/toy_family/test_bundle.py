"""The toy from its bundle: on both CPU backends, from the commands, from C, and on the fake GPU."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector, open_bundle
from ndp_rt.cli import main
from ndp_rt.errors import BundleError, InputError
from ndp_rt.kernels import registry
from tests.capi.library import Library
from tests.capi.programs import run_steps
from tests.capi.test_same_answers import check_equal, inspect
from tests.fakes.fake_cupy import FakeCuda
from tests.tolerances import assert_close
from tests.toy_family.conftest import FOLDER, make_photograph

pytestmark = pytest.mark.torch
ROOT = FOLDER.parent.parent
BACKENDS = ("openvino", "onnxruntime")
SIZE = (48, 40)


def test_the_manifest_holds_its_program_its_memory_and_its_rules(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["format_version"] == 2
    assert manifest["model"] == {"family": "toy", "preset": "small", "rewrites": [], "weights": "fp32"}
    (program,) = manifest["programs"]["cpu"]
    assert [step.get("engine") or step["op"] for step in program["steps"]] == ["extract", "nearest_patch", "head"]
    assert manifest["assets"]["memory"] == {
        "file": "memory.safetensors",
        "tensors": {"patches": [24, 8]},
        "swappable": False,
    }
    assert manifest["decision"] == {"smooth": {"rule": "none"}, "score": {"rule": "top_k_mean", "k": 20}}
    assert set(manifest["parity"]["cases"]) == {"openvino staged", "onnxruntime staged"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_are_the_mean_of_the_largest_values_of_the_map(bundle: Path, backend: str) -> None:
    image = make_photograph(50, has_defect=True)
    with Inspector.open(bundle, backend=backend, threads=1) as inspector:
        result = inspector.inspect(image)
        assert not inspector.inspect(make_photograph(51)).is_defect
    assert result.is_defect and result.defects
    assert result.anomaly_map.shape == image.shape


def test_both_backends_give_the_golden_maps(bundle: Path) -> None:
    golden = open_bundle(bundle).golden()
    scores = np.sort(golden.map.reshape(len(golden.map), -1), axis=1)[:, -20:].mean(axis=1)
    assert_close(golden.score, scores, "map", "float32")
    images = [np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8) for image in golden.image]
    for backend in BACKENDS:
        with Inspector.open(bundle, backend=backend, threads=1, batches=(1, 2)) as inspector:
            for found, expected, score in zip(inspector.inspect_batch(images), golden.map, golden.score, strict=True):
                assert_close(found.anomaly_map, expected[0], "map", "float32")
                assert found.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_commands_build_and_inspect(
    bundle: Path, photographs: Path, tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build-engine", str(bundle), "--backend", backend, "--threads", "1"]) == 0
    defect = tmp_path / "defect.png"
    assert cv2.imwrite(str(defect), make_photograph(60, has_defect=True))
    out = tmp_path / "out"
    command = [
        "inspect",
        str(bundle),
        str(photographs / "0.png"),
        str(defect),
        "-o",
        str(out),
        "--overlays",
        "--format",
        "csv",
    ]
    assert main([*command, "--backend", backend, "--threads", "1"]) == 3
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["decision"] for row in rows] == ["good", "defect"]
    assert len(list(out.rglob("*.png"))) == 2


def test_the_memory_stays(bundle: Path) -> None:
    with (
        Inspector.open(bundle, threads=1) as inspector,
        pytest.raises(InputError, match="expected a model with a reference image, got one without"),
    ):
        inspector.set_reference(make_photograph(0))


def test_a_program_without_its_op_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry._load_foreign.cache_clear()
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(FOLDER)])
    with pytest.raises(BundleError, match=r"program 'staged' on cpu, step 2 .* got 'nearest_patch'\. Install"):
        open_bundle(bundle)


def test_c_gets_what_python_gets(bundle: Path, library: Library) -> None:
    options: dict[str, Any] = {"threads": 1}
    handle = library.open(bundle, **options)
    image = make_photograph(70, has_defect=True)
    with Inspector.open(bundle, **options) as opened:
        expected = opened.inspect(image)
    assert expected.is_defect
    check_equal(inspect(library, handle, image, "GREY8"), expected)
    library.lib.ndp_rt_inspector_close(handle)


def test_a_program_in_c_has_it_where_it_is_installed(
    bundle: Path, steps: Path, library_path: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", environment], check=True)
    python = {"NDP_RT_PYTHON": str(environment / "bin" / "python")}
    packages = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    (site,) = environment.glob("lib/*/site-packages")
    (site / "all.pth").write_text("\n".join([*packages, str(FOLDER)]))
    words = [f"open={bundle}", "inspect", "close"]
    lines = run_steps(steps, library_path, words, python)
    assert [line.split()[0] for line in lines] == ["open:", "inspect:", "score:", "close:"], lines
    (site / "all.pth").write_text("\n".join(packages))
    assert (
        "got 'nearest_patch'. Install the package that brings it." in run_steps(steps, library_path, words, python)[0]
    )


@pytest.mark.parametrize("batches", [(1,), (1, 2)])
def test_the_fake_gpu_gives_what_the_cpu_gives(bundle: Path, fake_gpu: FakeCuda, batches: tuple[int, ...]) -> None:
    images = [make_photograph(80 + index, has_defect=index == 1) for index in range(3)]
    with (
        Inspector.open(bundle, threads=1) as host,
        Inspector.open(bundle, device="cuda", backend="fake", batches=batches) as opened,
    ):
        for image, found in zip(images, opened.inspect_batch(images), strict=True):
            expected = host.inspect(image)
            assert_close(found.anomaly_map, expected.anomaly_map, "map", "float32")
            assert found.score == pytest.approx(expected.score, abs=1e-4)
            assert found.is_defect == expected.is_defect
    assert fake_gpu.device_heap.blocks == fake_gpu.pinned_heap.blocks == {}


def test_nothing_outside_the_tests_knows_the_toy() -> None:
    words = re.compile(r"toy_memory|nearest_patch|[\"']toy[\"']")
    folders = [ROOT / name for name in ("ndp_rt", "kernels", "export", "bench")]
    sources = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".cu", ".cuh", ".c")]
    assert len(sources) > 200
    assert [path for path in sources if words.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.nightly(but=1)
def test_nvidias_compiler_takes_its_stages(bundle: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
    command = ["build-engine", str(bundle), "--backend", "tensorrt-rtx", "--for", "sm89", "--precision", precision]
    assert main(command) == 0
    assert "sm89" in capsys.readouterr().out

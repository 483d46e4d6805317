"""Small exports of anomalib 2.7's own exporter as bundles, held to what its models gave in PyTorch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt import ImportSettings, Inspector, import_onnx
from ndp_rt.engines.backends.tensorrt_rtx.options import TensorRtRtxOptions
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.spec import EngineSpec
from tests.importing.anomalib_exports import GIVEN_FILE, MODEL_FILE, SMALL

EXPORTS = Path(__file__).parents[1] / "data" / "anomalib"
ALLOWED = 1e-4  # of the largest value: issue 16
BACKENDS = ("openvino", "onnxruntime")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=SMALL)
def place(request: pytest.FixtureRequest) -> Path:
    return EXPORTS / str(request.param)


def differ(found: Any, expected: Any) -> float:
    """Return the largest difference as a share of the largest value expected."""
    expected = np.asarray(expected, np.float64).squeeze()
    return float(np.abs(np.asarray(found, np.float64).squeeze() - expected).max() / np.abs(expected).max())


def inspect(bundle: Path, given: Any, **settings: Any) -> tuple[list[np.ndarray], list[float]]:
    """Return the maps and scores of the two images."""
    pictures = [np.rint(one.transpose(1, 2, 0) * 255).astype(np.uint8) for one in given["images"]]
    with Inspector.open(bundle, threads=1, threshold=1.0, **settings) as inspector:
        results = inspector.inspect_batch(pictures)
    return [one.anomaly_map for one in results], [one.score for one in results]


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("backend", BACKENDS)
def test_without_its_end_it_gives_the_models_own_values(place: Path, tmp_path: Path, backend: str) -> None:
    done = import_onnx(place / MODEL_FILE, tmp_path / "raw.ndp", ImportSettings(source="anomalib"))
    assert done.result == "anomaly_map"
    assert any(step.startswith("clip") for step in done.removed)
    given = np.load(place / GIVEN_FILE)
    maps, scores = inspect(done.bundle.path, given, backend=backend)
    assert differ(maps, given["raw_map"]) < ALLOWED
    assert differ(scores, given["raw_score"]) < ALLOWED


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("backend", BACKENDS)
def test_with_its_end_it_gives_what_anomalib_shows(place: Path, tmp_path: Path, backend: str) -> None:
    done = import_onnx(place / MODEL_FILE, tmp_path / "whole.ndp")
    assert done.removed == ()
    given = np.load(place / GIVEN_FILE)
    maps, scores = inspect(done.bundle.path, given, backend=backend)
    assert differ(maps, given["map"]) < ALLOWED
    assert differ(scores, given["score"]) < ALLOWED


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nvidias_compiler_takes_it(place: Path, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    done = import_onnx(place / MODEL_FILE, tmp_path / "raw.ndp", ImportSettings(source="anomalib"))
    build = TensorRtRtxOptions(targets="sm86")
    build_engine(done.bundle, EngineSpec(device="cuda", backend="tensorrt-rtx", precision=precision, build=build))


def test_the_command_takes_an_export_in_an_empty_folder(tmp_path: Path) -> None:
    model = EXPORTS / "Patchcore" / MODEL_FILE
    command = [sys.executable, "-m", "ndp_rt.cli", "import", str(model), "-o", "patchcore.ndp", "--from", "anomalib"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "patchcore.ndp").is_dir()

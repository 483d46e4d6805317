"""A model of another program as the first contender, and its graph elsewhere: whatever its map's size and score."""

from pathlib import Path

import pytest

from ndp_rt import import_onnx, open_bundle
from ndp_rt.bench.rivals import find_rival
from ndp_rt.bench.rivals.base import list_golden_images, open_checked
from ndp_rt.bench.timed.inspector import TimedInspector
from ndp_rt.bench.timed.spec import OURS, TimedSpec
from ndp_rt.cli import main
from ndp_rt.errors import InputError
from tests.importing.models import ANOMALIB_OUTPUTS, MAP, MAP_OUTPUT, NORMALISED, RAW, write_model

SMALL = RAW + "  anomaly_map = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (raw)\n"
MEAN = "  score = ReduceMean <axes = [1, 2, 3], keepdims = 0> (raw)\n"
MODELS = {
    "a map": (MAP, MAP_OUTPUT),
    "a small map": (SMALL, "float[N,1,8,8] anomaly_map"),
    "a small map and a score": (SMALL + MEAN, "float[N,1,8,8] anomaly_map, float[N] score"),
    "a score alone": (RAW + MEAN, "float[N] score"),
}


@pytest.fixture(params=MODELS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    body, outputs = MODELS[request.param]
    return import_onnx(write_model(tmp_path / "m.onnx", body, outputs), tmp_path / "m.ndp").bundle.path


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("batch", [1, 2])
def test_it_is_checked_and_timed(bundle: Path, batch: int) -> None:
    how = {"precision": "fp32", "backend": "openvino", "plan": "fused", "threads": 1}
    spec = TimedSpec(name="ours", word=OURS, kind=OURS, bundle=str(bundle), batches=(batch,), **how)  # type: ignore[arg-type]
    timed = TimedInspector(spec)
    try:
        assert timed.opened.checks[batch].against == "ONNX Runtime fp32 maps of the golden images"
        images = list_golden_images(open_bundle(bundle), batch)
        timed.decide(images, batch)
        assert timed.take_parts()["total"] > 0
        assert timed.judge(images[0])[0].shape == (32, 32)
    finally:
        timed.close()


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("batch", [1, 2])
def test_its_graph_is_a_rival(bundle: Path, batch: int) -> None:
    opened, check = open_checked(find_rival("onnxruntime", "cpu"), open_bundle(bundle), "fp32", batch, threads=1)
    assert check.map_max_abs_difference <= check.allowed
    maps, scores = opened.run(list_golden_images(open_bundle(bundle), batch))
    assert maps.shape == (batch, 1, 32, 32) and scores.shape == (batch,)
    opened.close()


@pytest.mark.nightly(but=1)
@pytest.mark.torch
def test_its_graph_in_pytorch(bundle: Path) -> None:
    manifest = open_bundle(bundle)
    if manifest.manifest.decision.score == "output":
        with pytest.raises(InputError, match="expected a model whose score is its map's"):
            open_checked(find_rival("pytorch", "cpu"), manifest, "fp32", 1, threads=1)
        return
    opened, check = open_checked(find_rival("pytorch", "cpu"), manifest, "fp32", 1, threads=1)
    assert check.map_max_abs_difference <= check.allowed and opened.run(list_golden_images(manifest, 1))[0].ndim == 4
    opened.close()


@pytest.mark.nightly
def test_the_command_takes_it_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_model(tmp_path / "m.onnx", NORMALISED, ANOMALIB_OUTPUTS)
    assert main(["import", str(path), "-o", str(tmp_path / "m.ndp"), "--from", "anomalib"]) == 0
    command = ["bench", str(tmp_path / "m.ndp"), "--threads", "1", "--against", "onnxruntime", "--seconds", "0.1"]
    assert main([*command, "-o", str(tmp_path / "m.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "m (preset anomalib), cpu" in out and "onnxruntime fp32" in out
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 1

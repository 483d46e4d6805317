"""Models of other programs in int8: whatever their map's size, and whoever gives the score."""

from pathlib import Path

import cv2
import pytest

from ndp_rt import Inspector, import_onnx, open_bundle
from ndp_rt.cli import main
from tests.importing.models import MAP, MAP_OUTPUT, RAW, write_model

SMALL = RAW + "  anomaly_map = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (raw)\n"
MEAN = "  score = ReduceMean <axes = [1, 2, 3], keepdims = 0> (raw)\n"
MODELS = {
    "a map": (MAP, MAP_OUTPUT, "max"),
    "a small map and a score": (SMALL + MEAN, "float[N,1,8,8] anomaly_map, float[N] score", "output"),
    "a score alone": (RAW + MEAN, "float[N] score", "max"),
}


@pytest.mark.nightly(but=1)
@pytest.mark.usefixtures("fast_int8")
@pytest.mark.parametrize("name", MODELS)
def test_layers_of_an_imported_model_are_chosen_and_used(tmp_path: Path, surface: Path, name: str) -> None:
    body, outputs, score = MODELS[name]
    path = tmp_path / "m.ndp"
    import_onnx(write_model(tmp_path / "m.onnx", body, outputs), path)
    assert open_bundle(path).manifest.decision.score == score
    command = ["quantise", str(path), "--calibration", str(surface), "--precision", "int8", "--max-drop", "0.9"]
    assert main(command) == 0
    bundle = open_bundle(path)
    layers = bundle.int8_layers()
    assert layers is not None and layers.chosen == {"int8": ("w",)}
    with Inspector.open(path, precision="int8", threads=1) as inspector:
        rounded = inspector.inspect(cv2.imread(str(surface / "good_0.png")))
    with Inspector.open(path, threads=1, threshold=1.0) as inspector:
        exact = inspector.inspect(cv2.imread(str(surface / "good_0.png")))
    assert rounded.threshold == bundle.threshold("int8").value
    assert rounded.score == pytest.approx(exact.score, rel=0.05) and rounded.score != exact.score

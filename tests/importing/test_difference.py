"""Models that paint their image again: the map is how far the picture is from the image."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt import ImportSettings, Inspector, import_onnx
from ndp_rt.errors import InputError
from ndp_rt.importing.terms import Convention
from tests.importing.models import SIDE, write_model

BLUR = "kernel_shape = [3, 3], pads = [1, 1, 1, 1]"
FLOAT = f"  picture = AveragePool <{BLUR}> (input)\n"
BYTES = f"""
  planes = Cast <to = 1> (input)
  turned = Transpose <perm = [0, 3, 1, 2]> (planes)
  blurred = AveragePool <{BLUR}> (turned)
  picture = Transpose <perm = [0, 2, 3, 1]> (blurred)
"""
MODELS = {
    "planes": (FLOAT, "float[N,3,32,32] input", "float[N,3,32,32] picture", 1),
    "bytes, channels last": (BYTES, "uint8[N,32,32,3] input", "float[N,32,32,3] picture", 255),
}


@pytest.mark.parametrize("case", MODELS)
def test_the_map_is_the_mean_difference_of_the_channels(tmp_path: Path, rng: np.random.Generator, case: str) -> None:
    body, image, outputs, white = MODELS[case]
    model = write_model(tmp_path / "m.onnx", body, outputs, image=image)
    settings = ImportSettings(map="difference:picture", convention=Convention(scale=white))
    done = import_onnx(model, tmp_path / "m.ndp", settings)
    assert (done.result, done.batches) == ("difference:picture", True)
    assert [words.split()[0] for words in done.unused] == ["picture"]
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    with Inspector.open(done.bundle.path, threads=1, threshold=0.1) as inspector:
        result = inspector.inspect(pixels)
    values = pixels.astype(np.float64) * (white / 255)
    inside = np.s_[1:-1, 1:-1]  # at the border AveragePool divides by fewer pixels
    expected = np.abs(cv2.blur(values, (3, 3)) - values).mean(axis=2)
    np.testing.assert_allclose(result.anomaly_map[inside], expected[inside], rtol=1e-4, atol=1e-4 * white)
    assert result.score == pytest.approx(result.anomaly_map.max())


@pytest.mark.parametrize(
    ("name", "outputs"), [("other", "float[N,3,32,32] picture"), ("picture", "float[N,3,16,16] picture")]
)
def test_a_picture_that_is_not_there_or_of_other_sizes_is_refused(tmp_path: Path, name: str, outputs: str) -> None:
    body = FLOAT if "32" in outputs else "  picture = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (input)\n"
    model = write_model(tmp_path / "m.onnx", body, outputs)
    with pytest.raises(InputError, match=rf"expected an output '{name}' of the image's sizes, \[1, 3, 32, 32\], got"):
        import_onnx(model, tmp_path / "m.ndp", ImportSettings(map=f"difference:{name}"))
    assert not (tmp_path / "m.ndp").exists()


def test_a_picture_alone_is_refused_with_the_option(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx", FLOAT, "float[N,3,32,32] picture")
    with pytest.raises(InputError, match="say --map difference:OUTPUT"):
        import_onnx(model, tmp_path / "m.ndp")

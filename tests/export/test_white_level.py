"""Training on 12 bits in 16: the white level is found, trained with, exported, and trained images are known again."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from ndp_rt.bundle.open import open_bundle
from ndp_rt.cli import main
from ndp_rt.cli.good_images import list_good_images
from ndp_rt.errors import DataError, InputError
from ndp_rt.export.data.images import GoodImages
from ndp_rt.export.data.split import split_data
from ndp_rt.export.onnx.bundle import ExportSettings, _with_white_level, export_run
from ndp_rt.export.training.run_folder import TrainedRun
from ndp_rt.program.manifest import InputContract
from tests.export.tiny_run import train_tiny, write_surface

pytestmark = pytest.mark.torch


def write_12_bits(folder: Path, count: int = 6) -> Path:
    """Write the images of `write_surface` as a camera of 12 bits leaves them in 16."""
    for path in write_surface(folder, count).iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 16)
    return folder


def test_12_bits_in_16_are_trained_as_the_same_images_of_8_bits_are(tmp_path: Path) -> None:
    deep = split_data(write_12_bits(tmp_path / "deep"), holdout=0.0, seed=0).training
    plain = split_data(write_surface(tmp_path / "plain"), holdout=0.0, seed=0).training
    wanted = GoodImages(plain, InputContract(height_px=64, width_px=64))
    found = GoodImages(deep, InputContract(height_px=64, width_px=64, white_level_16bit=4095))
    assert max(float(np.abs(found[index] - wanted[index]).max()) for index in range(len(plain))) < 5e-3


@pytest.mark.nightly
def test_the_white_level_goes_from_the_images_to_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_12_bits(tmp_path / "data"), tmp_path / "run"
    train_tiny(data, run)
    said = " ".join(capsys.readouterr().err.split())  # without the line breaks of a narrow terminal
    assert "white level 4095: the largest value of 5 16-bit image(s) is" in said
    assert json.loads((run / "run.json").read_text())["input"]["white_level_16bit"] == 4095
    train_tiny(data, run, resumes=True)  # finds the same, and its own
    with pytest.raises(InputError, match="expected 4095, at which the run was trained on 16-bit images, got 65535"):
        export_run(run, tmp_path / "other.ndp", ExportSettings(white_level=65535))
    manifest = export_run(run, tmp_path / "deep.ndp").bundle.manifest
    assert manifest.input.white_level_16bit == 4095
    assert manifest.training_range is not None and 0.3 < manifest.training_range.brightest_least < 0.8
    training = split_data(data, holdout=0.2, seed=0).training
    assert len(manifest.training_images) == len(training) == 5

    others = [path for path in data.iterdir() if path not in training]
    assert list_good_images([str(data)], manifest.training_images) == others
    assert "5 image(s) that the model was trained on are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="not trained on, got none"):
        list_good_images([str(path) for path in training], manifest.training_images)
    arguments = ["set-threshold", str(tmp_path / "deep.ndp"), "--calibrate", *map(str, training)]
    assert main(arguments) == 1
    assert open_bundle(tmp_path / "deep.ndp").manifest.training_images == manifest.training_images


def test_a_run_on_8_bits_takes_another_white_level() -> None:
    unused: Any = None
    run = TrainedRun(
        folder=unused,
        document={"data": {"has_16_bits": False}},
        family=unused,
        settings=unused,
        contract=InputContract(height_px=64, width_px=64),
        calibration_paths=(),
        calibration_groups=(),
    )
    assert _with_white_level(run, 4095).contract.white_level_16bit == 4095
    assert _with_white_level(run, None) is run


@pytest.mark.nightly
def test_a_run_on_8_bits_may_be_exported_for_12(tmp_path: Path) -> None:
    train_tiny(write_surface(tmp_path / "data"), tmp_path / "run")
    bundle = export_run(tmp_path / "run", tmp_path / "a.ndp", ExportSettings(white_level=4095)).bundle
    assert bundle.manifest.input.white_level_16bit == 4095

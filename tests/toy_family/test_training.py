"""The toy trains by the loop that every family has."""

import json
import shutil
from pathlib import Path

import pytest

from ndp_rt.cli import main
from ndp_rt.errors import InputError
from ndp_rt.export.models.registry import find_family, list_families
from ndp_rt.export.training.checkpoint import load_tensors
from ndp_rt.export.training.run_folder import load_run

pytestmark = pytest.mark.torch


def test_it_is_found_beside_the_family_that_ships() -> None:
    assert list_families() == ("gaussian", "memseg", "ndpnet", "toy")
    assert find_family("toy").title == "Toy"
    with pytest.raises(InputError, match="expected gaussian or memseg or ndpnet or toy, got 'large'"):
        find_family("large")


def test_its_argument_is_in_the_help_and_ndp_nets_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--family", "toy", "--help"])
    text = capsys.readouterr().out
    assert "--memory N" in text and "--steps A " in text and "--vgg" not in text


def test_the_run_says_what_it_is(run: Path) -> None:
    found = load_run(run)
    assert found.family.name == "toy"
    assert found.settings.to_json()["memory_count"] == 24
    assert found.document["memory_count"] == 24
    assert found.document["steps_done"] == [120]
    header = (run / "losses.csv").read_text().splitlines()[0]
    assert header == "phase,step,learning_rate,seg"


def test_the_memory_is_of_good_images_and_the_features_stay(run: Path) -> None:
    tensors, _ = load_tensors(run / "model.safetensors")
    assert tensors["patches"].shape == (24, 8) and tensors["patches"].abs().sum() > 0


def test_a_stopped_run_resumes(run: Path, photographs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**document, "finished": False}))
    (copy / "model.safetensors").unlink()
    options = ["--family", "toy", "--memory", "24", "--size", "48x40", "--threads", "1", "--holdout", "0.4"]
    assert main(["train", str(photographs), "-o", str(copy), *options, "--resume"]) == 0
    again, _ = load_tensors(copy / "model.safetensors")
    first, _ = load_tensors(run / "model.safetensors")
    assert all(tensor.equal(first[name]) for name, tensor in again.items())


def test_a_run_of_another_family_is_not_resumed(
    run: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(photographs), "-o", str(run), "--holdout", "0.4", "--threads", "1", "--resume"]) == 1
    assert "was trained with other --model" in capsys.readouterr().err

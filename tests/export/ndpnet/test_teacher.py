"""Teachers: which runs and files may teach, and what the others are told."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ndp_rt.errors import InputError, RunError
from ndp_rt.export.models.ndpnet.teacher import Teacher, find_teacher, load_teacher
from ndp_rt.export.training.checkpoint import load_tensors, save_tensors
from ndp_rt.program.manifest import InputContract
from tests.export.tiny_run import train_tiny, write_surface

pytestmark = pytest.mark.torch
CONTRACT = InputContract(height_px=64, width_px=64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_surface(tmp_path_factory.mktemp("data"))
    return train_tiny(data, tmp_path_factory.mktemp("runs") / "large", changes={"width": 6}).path


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "large"))


def find(path: Path, **options: Any) -> Teacher:
    return find_teacher(path, **{"contract": CONTRACT, "output": Path("elsewhere"), **options})


def change_run(run: Path, **entries: Any) -> Path:
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, **entries}))
    return run


def change_checkpoint(run: Path, **state: Any) -> Path:
    """Write the run's checkpoint again with another state in its header; return its path."""
    path = run / "checkpoint.safetensors"
    tensors, header = load_tensors(path)
    save_tensors(path, tensors, {**header, "state": {**header["state"], **state}})
    return path


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("file", ["", "model.safetensors", "checkpoint.safetensors"])
def test_a_runs_folder_its_weights_and_its_checkpoint_are_the_same_network(file: str, trained: Path) -> None:
    teacher = find(trained / file)
    assert (teacher.settings.preset, teacher.settings.width) == ("edge", 6)
    model, (expected, _) = load_teacher(teacher, "cpu"), load_tensors(trained / "model.safetensors")
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert not model.training


def test_its_record_names_no_folder_but_its_own(trained: Path) -> None:
    record = find(trained).to_json()
    assert (record["name"], record["file"], record["steps_done"]) == ("large", "model.safetensors", [4, 5])
    assert str(trained.parent) not in json.dumps(record)
    training = json.loads((trained / "run.json").read_text())["data"]["training_sha256"]
    assert record["training_sha256"] == training
    of_file = find(trained / "checkpoint.safetensors").to_json()
    assert (of_file["steps_done"], of_file["training_sha256"]) == ([4, 5], training)


def test_of_weights_on_their_own_it_is_not_known_what_they_were_trained_on(trained: Path, tmp_path: Path) -> None:
    alone = find(Path(shutil.copy(trained / "checkpoint.safetensors", tmp_path)))
    assert alone.training_sha256 is None
    assert alone.sha256 == find(trained / "checkpoint.safetensors").sha256


def test_other_weights_are_another_identity(trained: Path, copied: Path) -> None:
    assert find(copied).sha256 == find(trained).sha256
    tensors, header = load_tensors(copied / "model.safetensors")
    tensors["decoder.last.bias"] += 1.0
    save_tensors(copied / "model.safetensors", tensors, header)
    assert find(copied).sha256 != find(trained).sha256


def test_reading_a_teacher_draws_no_random_numbers(trained: Path) -> None:
    before = torch.get_rng_state()
    load_teacher(find(trained), "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_refuses_a_teacher_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--teacher .*nothing is not there\. Give the folder of a finished run"):
        find(tmp_path / "nothing")


def test_refuses_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--teacher .*run.json cannot be read"):
        find(tmp_path)


def test_refuses_an_unfinished_run_and_names_the_way_on(copied: Path) -> None:
    with pytest.raises(RunError, match="has not finished training. Go on with it"):
        find(change_run(copied, finished=False))


def test_refuses_a_run_of_a_newer_format(copied: Path) -> None:
    with pytest.raises(RunError, match="--teacher .*format 2.*Update ndp-rt"):
        find(change_run(copied, format_version=2))


def test_refuses_a_run_whose_record_is_damaged(copied: Path) -> None:
    with pytest.raises(RunError, match="its record is damaged"):
        find(change_run(copied, settings={"width": 6}))


@pytest.mark.parametrize("state", [{"phase": 1}, {"step": 0}])
def test_refuses_a_checkpoint_whose_maps_are_not_trained(state: dict[str, int], copied: Path) -> None:
    with pytest.raises(RunError, match="whose maps are not trained yet"):
        find(change_checkpoint(copied, **state))


def test_refuses_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"no weights")
    with pytest.raises(RunError, match="--teacher .*cannot be read as a checkpoint.*Give the folder") as caught:
        find(tmp_path / "photo.png")
    assert "--resume" not in str(caught.value)  # the advice for a run's own checkpoint


def test_refuses_a_teacher_of_another_input_size(trained: Path) -> None:
    with pytest.raises(InputError, match="expected a network for 64 x 128 px rgb, got one for 64 x 64 px rgb"):
        find(trained, contract=InputContract(height_px=64, width_px=128))


def test_refuses_a_teacher_of_another_colour(copied: Path) -> None:
    document = {**CONTRACT.to_json(), "colour": "grey"}
    with pytest.raises(RunError, match="--teacher .*colour 'grey'"):
        find(change_run(copied, input=document))


@pytest.mark.parametrize("file", ["", "checkpoint.safetensors"])
def test_refuses_the_run_itself_as_teacher(file: str, trained: Path) -> None:
    with pytest.raises(RunError, match="is the run to be trained itself"):
        find(trained / file, output=trained / ".." / "large")


def test_refuses_weights_of_another_width_than_the_record_says(copied: Path, tmp_path: Path) -> None:
    document = json.loads((copied / "run.json").read_text())
    teacher = find(change_run(copied, settings={**document["settings"], "width": 8}))
    with pytest.raises(RunError, match="does not hold the weights that its record says") as caught:
        load_teacher(teacher, "cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_refuses_weights_that_are_not_finite(copied: Path) -> None:
    tensors, header = load_tensors(copied / "model.safetensors")
    tensors["decoder.last.bias"][1] = float("nan")
    save_tensors(copied / "model.safetensors", tensors, header)
    with pytest.raises(RunError, match=r"decoder\.last\.bias hold values that are not finite"):
        load_teacher(find(copied), "cpu")


def test_refuses_a_run_without_its_weights(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(RunError, match="model.safetensors cannot be read"):
        find(copied)

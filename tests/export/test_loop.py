"""Training end to end on a tiny network: what a run folder holds, resuming, seeds, and what stops a run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ndp_rt.errors import DataError, RunError
from ndp_rt.export.models.ndpnet import training as ndpnet
from ndp_rt.export.models.ndpnet.network import NDPNet
from ndp_rt.export.training import loop as training
from ndp_rt.export.training.checkpoint import load_tensors, save_tensors
from ndp_rt.export.training.progress import read_losses
from ndp_rt.export.training.run_folder import command_line, load_run, open_run
from tests.export.tiny_run import train_tiny, write_surface

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surface(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    return train_tiny(data, tmp_path_factory.mktemp("runs") / "whole").path


def load_weights(run: Path) -> dict[str, Tensor]:
    return load_tensors(run / "model.safetensors")[0]


def assert_same_weights(run: Path, other: Path) -> None:
    weights, others = load_weights(run), load_weights(other)
    assert weights.keys() == others.keys()
    different = [name for name in weights if not torch.equal(weights[name], others[name])]
    assert different == []


def stop_after(monkeypatch: pytest.MonkeyPatch, step_count: int, stop: Any) -> None:
    """Call stop() when the step after `step_count` begins."""
    step = training.Trainer._step
    done = 0

    def counted(self: training.Trainer, phase: int, batch: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        if done > step_count:
            stop()
        return step(self, phase, batch)

    monkeypatch.setattr(training.Trainer, "_step", counted)


def test_a_run_folder_holds_everything_that_export_needs(data: Path, finished: Path) -> None:
    run, document = open_run(finished)
    assert document["finished"] is True
    assert document["steps_done"] == [4, 5]
    assert document["settings"]["width"] == 4
    assert document["input"]["height_px"] == 64
    assert document["data"]["training_image_count"] == 5
    assert (finished / "reference.png").is_file()
    assert (finished / "curve.png").is_file()
    calibration = run.read_json("calibration.json")
    assert [Path(path).parent for path in calibration] == [data]
    assert len(run.read_json("calibration_groups.json")) == len(calibration)
    assert document["data"]["calibration_group_count"] == len(calibration)
    listing = run.read_json("data.json")
    assert not {row["path"] for row in listing["training"]} & {row["path"] for row in listing["calibration"]}
    model = NDPNet(4, 64, 64)
    model.load_state_dict(load_weights(finished))
    assert model.reference_3.abs().sum() > 0
    anomaly_map, _ = model.eval()(torch.rand(1, 3, 64, 64))
    assert torch.isfinite(anomaly_map).all()


def test_phase_2_leaves_the_encoder_as_phase_1_made_it(data: Path, finished: Path, tmp_path: Path) -> None:
    longer = train_tiny(data, tmp_path / "run", changes={"phase_steps": (4, 6)}).path
    first, second = load_weights(finished), load_weights(longer)
    encoder = [name for name in first if name.startswith("encoder.")]
    assert all(torch.equal(first[name], second[name]) for name in encoder)
    assert any(not torch.equal(first[name], second[name]) for name in first if name.startswith("msdsm."))


def test_losses_are_written_for_both_phases(finished: Path) -> None:
    rows = read_losses(finished / "losses.csv")
    assert [(row["phase"], row["step"]) for row in rows] == [(1, 4), (2, 5)]
    assert {"rec", "def_per"} <= rows[0].keys()
    assert {"rec", "fea_rep", "seg"} <= rows[1].keys()


def test_the_same_seed_gives_the_same_weights(data: Path, finished: Path, tmp_path: Path) -> None:
    assert_same_weights(train_tiny(data, tmp_path / "again").path, finished)


def test_another_seed_gives_other_weights(data: Path, finished: Path, tmp_path: Path) -> None:
    other = load_weights(train_tiny(data, tmp_path / "other", seed=1).path)
    assert not torch.equal(other["decoder.last.weight"], load_weights(finished)["decoder.last.weight"])


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("step_count", [2, 4, 6])
def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_weights(
    step_count: int, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, step_count, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train_tiny(data, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    train_tiny(data, tmp_path / "run", resumes=True)
    assert_same_weights(tmp_path / "run", finished)
    assert read_losses(tmp_path / "run" / "losses.csv") == read_losses(finished / "losses.csv")
    assert len(open_run(tmp_path / "run")[1]["commands"]) == 2


def test_a_background_job_that_ignores_ctrl_c_trains_on(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop_after(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        train_tiny(data, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert_same_weights(tmp_path / "run", finished)


KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
import pytest
from tests.export.test_loop import stop_after
from tests.export.tiny_run import train_tiny
stop_after(pytest.MonkeyPatch(), int(sys.argv[3]), lambda: os.kill(os.getpid(), signal.SIGKILL))
train_tiny(Path(sys.argv[1]), Path(sys.argv[2]), checkpoint_interval_s=0.0)
"""


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("step_count", [2, 6])
def test_a_run_of_the_time_before_families_resumes_to_the_same_weights(
    step_count: int, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, step_count, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train_tiny(data, run)
    tensors, header = load_tensors(run / "checkpoint.safetensors")
    state = header["state"]
    steps, facts = state.pop("steps_done"), state.pop("facts")
    state |= {"phase_1_steps": sum(steps), "reference_name": facts.get("reference_name")}
    save_tensors(run / "checkpoint.safetensors", tensors, header)
    document = json.loads((run / "run.json").read_text())
    del document["family"]
    (run / "run.json").write_text(json.dumps({**document, "width": 4}))
    train_tiny(data, run, resumes=True)
    assert_same_weights(run, finished)
    done = json.loads((run / "run.json").read_text())
    assert (done["steps_done"], done["reference"]) == ([4, 5], open_run(finished)[1]["reference"])
    assert load_run(run).family.name == "ndpnet"


@pytest.mark.nightly
@pytest.mark.parametrize("step_count", [6, 3])
def test_a_killed_run_resumes_to_the_same_weights(step_count: int, data: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED_AFTER, str(data), str(run), str(step_count)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    assert not (run / "model.safetensors").exists()
    train_tiny(data, run, resumes=True)
    assert_same_weights(run, finished)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ndpnet.phase_losses
    calls = 0

    def broken(*arguments: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        losses = real(*arguments)
        return {name: loss * float("nan") if calls == 7 else loss for name, loss in losses.items()}

    monkeypatch.setattr(ndpnet, "phase_losses", broken)
    with pytest.raises(RunError, match="step 3 of phase 2"):
        train_tiny(data, tmp_path / "run", checkpoint_interval_s=0.0)
    _, header = load_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert header["state"]["step"] == 2
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_time_limit_ends_both_phases_early_and_is_recorded(data: Path, tmp_path: Path) -> None:
    _, document = open_run(train_tiny(data, tmp_path / "run", minutes=1e-6).path)
    assert document["steps_done"] == [1, 1]
    assert document["is_cut_short_by_time_limit"] is True


def test_a_run_is_not_overwritten(data: Path, finished: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        train_tiny(data, finished)


def test_resuming_a_finished_run_changes_nothing(data: Path, finished: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    train_tiny(data, finished, resumes=True)
    assert (finished / "model.safetensors").read_bytes() == before


def test_refuses_to_resume_with_other_settings_or_data(data: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="learning_rate"):
        train_tiny(data, finished, resumes=True, changes={"learning_rate": 0.01})
    other = write_surface(tmp_path / "data", count=7)
    with pytest.raises(RunError, match="data files"):
        train_tiny(other, finished, resumes=True)


def test_refuses_to_resume_with_another_reference(data: Path, tmp_path: Path) -> None:
    run = train_tiny(data, tmp_path / "run", reference=data / "3.png").path
    for reference in (data / "4.png", None):
        with pytest.raises(RunError, match="other --reference file"):
            train_tiny(data, run, resumes=True, reference=reference)
    train_tiny(data, run, resumes=True, reference=data / "3.png")


def test_refuses_a_folder_whose_pictures_would_become_data(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds the good images"):
        train_tiny(data, data)
    textures = write_surface(tmp_path / "textures", count=2)
    with pytest.raises(RunError, match="lies in --textures"):
        train_tiny(data, textures / "deeper" / "run", textures=textures)
    assert not (data / "run.json").exists() and not (textures / "deeper").exists()


def test_the_recorded_command_is_one_that_a_shell_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/some/where/__main__.py", "train", "my photos", "-o", "a;b"])
    assert command_line() == "ndp-rt train 'my photos' -o 'a;b'"


def test_a_given_reference_is_used(data: Path, tmp_path: Path) -> None:
    _, document = open_run(train_tiny(data, tmp_path / "run", reference=data / "3.png").path)
    assert document["reference"] == {"name": str(data / "3.png"), "rule": "given by hand"}


def test_textures_are_taken_from_a_folder(data: Path, tmp_path: Path) -> None:
    textures = write_surface(tmp_path / "textures", count=2)
    _, document = open_run(train_tiny(data, tmp_path / "run", textures=textures).path)
    assert document["textures"]["image_count"] == 2
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="--textures: expected images in"):
        train_tiny(data, tmp_path / "other", textures=tmp_path / "none")


def test_missing_options_are_said_in_one_line_each(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny(data, tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert sum("L_per" in line for line in lines) == 1
    assert sum("other crops of the data itself" in line for line in lines) == 1


def test_a_damaged_image_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    damaged = write_surface(tmp_path / "data")
    (damaged / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png"):
        train_tiny(damaged, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_json_is_plain_json(finished: Path) -> None:
    document = json.loads((finished / "run.json").read_text())
    assert document["settings"]["preset"] == "edge"

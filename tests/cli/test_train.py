"""`ndp-rt train`: its arguments, and what it does with a folder."""

import contextlib
import importlib.util
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.cli import main, train
from ndp_rt.export.training import start
from ndp_rt.export.training.run_folder import open_run
from tests.export.tiny_run import train_tiny, write_surface

pytestmark = pytest.mark.torch


@pytest.mark.nightly
def test_trains_from_a_flat_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_surface(tmp_path / "data", count=3), tmp_path / "run"
    options = ["--model", "ndpnet", "--size", "64x128", "--crop", "64", "--steps", "1,1", "--batch", "1"]
    options += ["--threads", "1", "--seed", "4"]
    assert main(["train", str(data), "-o", str(run), *options]) == 0
    assert str(run) in capsys.readouterr().out
    _, document = open_run(run)
    assert document["seed"] == 4
    assert (document["input"]["height_px"], document["input"]["width_px"]) == (64, 128)
    assert document["preset"] == "edge"
    assert document["data"]["layout"] == "flat"


def test_a_folder_without_images_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run")]) == 1
    assert "expected images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option",
    [
        ["--steps", "5,6"],
        ["--model", "ndpnet", "--steps", "5"],
        ["--model", "gaussian", "--steps", "5"],
        ["--size", "big"],
        ["--minutes", "-1"],
        ["--time", "5d"],
        ["--time", "5mm"],
        ["--time", "0s"],
        ["--size", "64x"],
        ["--size", "automatic"],
        ["--defects", "line_share"],
        ["--steps", "1", "--epochs", "1"],
    ],
)
def test_wrong_usage_is_exit_2(option: list[str], tmp_path: Path) -> None:
    try:
        code = main(["train", str(tmp_path), "-o", str(tmp_path / "run"), *option])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2


@pytest.mark.parametrize(("text", "minutes"), [("5", 5.0), ("5m", 5.0), ("90s", 1.5), ("2h", 120.0), ("0.5m", 0.5)])
def test_times_have_units(text: str, minutes: float) -> None:
    assert train.parse_minutes(text) == minutes


@pytest.mark.parametrize("device", ["abacus", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_surface(tmp_path / "data", count=3)
    assert main(["train", str(data), "-o", str(tmp_path / "run"), "--device", device]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ndp-rt: error: --device: expected cpu, or a CUDA device")


@pytest.mark.nightly
def test_trains_with_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_surface(tmp_path / "data", count=3), tmp_path / "run"
    teacher = train_tiny(data, tmp_path / "teacher", changes={"width": 6}).path
    options = ["--model", "ndpnet", "--size", "64", "--crop", "64", "--steps", "1,1", "--batch", "1", "--threads", "1"]
    weights = ["--distil-weight", "2", "--distil-features", "0.5"]
    assert main(["train", str(data), "-o", str(run), *options, "--teacher", str(teacher), *weights]) == 0
    _, document = open_run(run)
    assert (document["settings"]["width"], document["teacher"]["width"]) == (16, 6)
    assert document["settings"]["distil"] == {"maps": 2.0, "features": 0.5}
    assert main(["train", str(data), "-o", str(run), *options, "--resume"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ndp-rt: error")]
    assert len(lines) == 1 and "other --teacher file" in lines[0]


@pytest.mark.parametrize("options", [["--distil-weight", "0"], ["--distil-features", "2.5"]])
def test_weights_of_a_teacher_without_one_are_refused(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run"), "--model", "ndpnet", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ndp-rt: error: {' '.join(options)} came without --teacher. Give")


def test_a_teacher_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "ndpnet", "--teacher", str(tmp_path / "no")]
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ndp-rt: error: --teacher {tmp_path / 'no'} is not there")


def test_no_threads_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run"), "--threads", "0"]) == 1
    assert "expected thread_count to be 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(("usable", "expected"), [(1, 1), (4, 3)])
def test_threads_are_those_that_affinity_and_quota_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: int, expected: int
) -> None:
    asked = []
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("ndp_rt.devices.core_limit.count_usable_cores", lambda: usable)
    monkeypatch.setattr(start, "train_run", lambda request, reporter: asked.append(request.changes["thread_count"]))
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run")]) == 0
    assert asked == [expected]


def test_a_missing_matplotlib_is_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run")]) == 1
    assert "matplotlib for the curve, which is not installed: pip install" in capsys.readouterr().err


@pytest.mark.parametrize(("has_checkpoint", "words"), [(True, "keeps the checkpoint. Go on"), (False, "Begin again")])
def test_ctrl_c_is_exit_130_and_names_the_way_on(
    has_checkpoint: bool,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_arguments: object) -> None:
        if has_checkpoint:
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / "checkpoint.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "train_run", interrupt)
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run")]) == 130
    assert f"{words} with the same command and --resume" in capsys.readouterr().err


def test_the_terminal_gets_its_cursor_back_after_an_error(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "ndp_rt.cli", "train", str(tmp_path), "-o", "run"]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end) as child:
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux ends a terminal whose programs have left
            while part := os.read(terminal, 65536):
                shown += part
    os.close(terminal)
    assert child.returncode == 1
    assert b"expected images" in shown
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1  # hidden by the bar, and shown again


def test_help_of_a_family_without_phases_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "data", "-o", "run", "--family", "gaussian", "--help"])
    assert "--backbone-weights" in capsys.readouterr().out

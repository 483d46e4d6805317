"""`ndp-rt train`: its arguments, and what it does with a folder."""

from pathlib import Path

import pytest

from ndp_rt.cli import main
from ndp_rt.export import training_run
from ndp_rt.export.run_dir import open_run
from tests.export.tiny_run import write_surface

pytestmark = pytest.mark.torch


def test_trains_from_a_flat_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_surface(tmp_path / "data", count=3), tmp_path / "run"
    options = ["--size", "64x128", "--crop", "64", "--steps", "1,1", "--batch", "1", "--threads", "1", "--seed", "4"]
    assert main(["train", str(data), "-o", str(run), *options]) == 0
    assert str(run) in capsys.readouterr().out
    _, document = open_run(run)
    assert document["seed"] == 4
    assert (document["input"]["height_px"], document["input"]["width_px"]) == (64, 128)
    assert document["preset"] == "edge"
    assert document["data"]["layout"] == "flat"


def test_a_folder_without_images_is_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run")]) == 1
    assert "holds no images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option",
    [
        ["--steps", "5"],
        ["--size", "big"],
        ["--minutes", "-1"],
        ["--defects", "line_share"],
        ["--steps", "1,2", "--epochs", "1,2"],
    ],
)
def test_wrong_usage_is_exit_2(option: list[str], tmp_path: Path) -> None:
    try:
        code = main(["train", str(tmp_path), "-o", str(tmp_path / "run"), *option])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2


def test_ctrl_c_is_exit_130_and_names_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_run, "train_run", interrupt)
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "run")]) == 130
    assert "--resume" in capsys.readouterr().err

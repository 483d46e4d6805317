"""`ndp-rt bench` as a user calls it, with the tiny bundle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.cli import main
from ndp_rt.errors import MissingExtraError, StorageError
from tests.bench.fake_process import make_process

# The command with its progress as lines on stderr, and without the matrix products, which take some ten seconds.
TELLING = """
import sys
from rich.status import Status
from ndp_rt.bench.explain import Explainer
from ndp_rt.cli import main
Explainer.measure_ceilings = lambda *values: None
Status.update = lambda self, line: print(line, file=sys.stderr, flush=True)
sys.exit(main(sys.argv[1:]))
"""


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the matrix products, which take some ten seconds and have their own tests."""
    for name in ("measure_ceilings", "compare_ceilings"):
        monkeypatch.setattr(f"ndp_rt.bench.explain.Explainer.{name}", lambda *values: None)


@pytest.mark.usefixtures("no_ceilings")
def test_records_are_appended_with_the_command_and_the_table_is_printed(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "records.jsonl"
    arguments = ["bench", str(tiny_bundle), "--seconds", "0.2", "--threads", "1", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["ndp-rt", *arguments])
    assert main(arguments) == 0
    first = out.read_text()
    assert main([*arguments, "--from-file"]) == 0
    assert out.read_text().startswith(first)
    memory, files = read_lines(out)
    assert memory["command"] == f"ndp-rt bench {tiny_bundle} --seconds 0.2 --threads 1 -o {out}"
    assert memory["settings"]["inside_the_clock"] == "a uint8 image in memory to the decision"
    assert files["settings"]["inside_the_clock"] == "an image file to the decision"
    printed = capsys.readouterr().out
    assert "ndp-rt openvino fp32" in printed and f"Appended to {out}" in printed


@pytest.mark.nightly
@pytest.mark.usefixtures("no_ceilings")
def test_accuracy_stands_beside_the_time(tiny_bundle: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for kind in ("good", "spot"):
        for index in range(2):
            image = rng.integers(100, 120, (64, 64, 3), np.uint8)
            path = tmp_path / "data" / "test" / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "spot":
                image[20:40, 20:40] = 255
                mask = np.zeros((64, 64), np.uint8)
                mask[20:40, 20:40] = 255
                (tmp_path / "data" / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(tmp_path / "data" / "ground_truth" / kind / f"{index}_mask.png"), mask)
            cv2.imwrite(str(path), image)
    out = tmp_path / "records.jsonl"
    data = ["--data", str(tmp_path / "data"), "--against", "onnxruntime"]
    assert main(["bench", str(tiny_bundle), "--seconds", "0.1", "-o", str(out), *data]) == 0
    ours, rival = (row["accuracy"] for row in read_lines(out)[0]["rows"])
    assert ours["source"] == "measured: data" and ours["image_count"] == 4
    for name in ("image_rocauc", "pixel_rocauc", "aupro"):  # one network, two runtimes
        assert 0.0 <= ours[name] <= 1.0
        assert rival[name] == pytest.approx(ours[name], abs=0.02)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seconds", "0"], "--seconds: expected a number above 0, got 0"),
        (["--against", "pytorh"], "pytorch"),
        (["--sweep", "colour"], "--sweep: expected one of batch"),
        (["--idle", "-1"], "--idle: expected a number above 0, got -1"),
        (["--precision", "fp64"], "--precision: expected one of fp32"),
        (["--scenario", "flood"], "--scenario: expected one of single-stream"),
        (["--data", "no/such/folder"], "no/such/folder"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_measured(
    tiny_bundle: Path,
    tmp_path: Path,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "records.jsonl"
    monkeypatch.setattr("subprocess.Popen", None)  # what is measured runs in a process of its own
    assert main(["bench", str(tiny_bundle), "-o", str(out), *more]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ndp-rt: error: ") and words in error
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_measured(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bench", str(tiny_bundle), "-o", str(tmp_path / "file" / "records.jsonl")]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("no_ceilings")
def test_a_disk_that_fills_meanwhile_loses_no_figures(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "records.jsonl"

    def fill(*values: object) -> None:
        out.mkdir()

    monkeypatch.setattr("ndp_rt.bench.run.open_process", lambda *values: make_process("ndp-rt openvino fp32", 10.0))
    monkeypatch.setattr("ndp_rt.bench.explain.Explainer.explain_work", fill)
    assert main(["bench", str(tiny_bundle), "--seconds", "1", "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert "ndp-rt openvino fp32" in captured.out and "cannot be written" in captured.err


@pytest.mark.usefixtures("no_ceilings")
def test_a_reader_that_left_costs_no_record(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "records.jsonl"

    def leave(*values: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("ndp_rt.bench.run.open_process", lambda *values: make_process("ndp-rt openvino fp32", 10.0))
    monkeypatch.setattr("ndp_rt.bench.explain.Explainer.explain_work", lambda *values: None)
    monkeypatch.setattr("ndp_rt.bench.table.print_record", leave)
    monkeypatch.setattr("ndp_rt.cli._drop_output", lambda: None)
    main(["bench", str(tiny_bundle), "--seconds", "1", "-o", str(out)])
    assert read_lines(out)[0]["is_complete"]


@pytest.mark.usefixtures("no_ceilings")
def test_an_error_in_the_middle_leaves_what_was_measured(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "records.jsonl"

    def fail(*values: object) -> None:
        raise StorageError("the bundle is gone")

    monkeypatch.setattr("ndp_rt.bench.run.open_process", lambda *values: make_process("ndp-rt openvino fp32", 10.0))
    monkeypatch.setattr("ndp_rt.bench.explain.Explainer.explain_work", fail)
    assert main(["bench", str(tiny_bundle), "--seconds", "1", "-o", str(out)]) == 1
    (record,) = read_lines(out)
    assert not record["is_complete"] and len(record["rows"]) == 1
    assert capsys.readouterr().err.strip().endswith("ndp-rt: error: the bundle is gone")


@pytest.mark.usefixtures("no_ceilings")
def test_a_run_in_which_nobody_could_take_part_is_no_success(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*values: object) -> None:
        raise MissingExtraError("OpenVINO cannot be imported")

    monkeypatch.setattr("ndp_rt.bench.run.open_process", refuse)
    assert main(["bench", str(tiny_bundle), "-o", str(tmp_path / "records.jsonl")]) == 4


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_record_that_says_so_and_no_processes(
    tiny_bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "records.jsonl"
    words = ["bench", str(tiny_bundle), "--seconds", "10", "--threads", "1", "-o", str(out)]
    run = [sys.executable, "-c", TELLING, *words]
    child = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert child.stderr is not None
    assert any("round 3 of" in line for line in child.stderr)
    child.send_signal(number)
    output, errors = child.communicate(timeout=300)
    assert child.returncode == 130, errors
    assert "Interrupted: the record holds what was measured until then" in output
    (record,) = read_lines(out)
    assert not record["is_complete"]
    assert [row["name"] for row in record["rows"]] == ["ndp-rt openvino fp32"]
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=False).stdout
    assert f" {child.pid} " not in listed


def test_report_and_compare_are_commands_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("report", "compare"):
        with pytest.raises(SystemExit) as caught:
            main(["bench", word, "--help"])
        assert caught.value.code == 0
        assert f"usage: ndp-rt bench {word}" in capsys.readouterr().out

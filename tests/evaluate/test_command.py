"""`ndp-rt evaluate` from end to end, on a bundle of a very small network with random weights."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bundle.open import open_bundle
from ndp_rt.bundle.write import update_manifest
from ndp_rt.cli import main
from tests.evaluate.test_dataset import make_data, write_png
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with tiny.ndp, data/, and a cache of its own."""
    root = tmp_path_factory.mktemp("evaluate command")
    make_tiny_bundle(root / "tiny.ndp")
    rng = np.random.default_rng(5)
    data = make_data(root / "data")
    mask = np.zeros((40, 30), np.uint8)
    mask[10:20, 5:12] = 255
    for kind in ("good", "crack"):
        for index in range(3):
            write_png(data / f"test/{kind}/{index}.png", rng.integers(0, 256, (40, 30), dtype=np.uint8))
            if kind != "good":
                write_png(data / f"ground_truth/{kind}/{index}_mask.png", mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(root / "cache"))
        patch.chdir(root)
        yield root


def test_prints_figures_and_writes_the_record_and_the_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "tiny.ndp", "data", "-o", "out", "--threads", "1"]) == 4  # hole/a.png has no mask
    out = capsys.readouterr().out
    assert "all defects" in out and "crack" in out
    assert "1 file was left out" in out
    record = json.loads((folder / "out/evaluation.json").read_text())
    assert (record["format"], record["format_version"]) == ("ndp-rt evaluation", 1)
    assert record["command"].startswith("ndp-rt evaluate tiny.ndp data")
    assert record["bundle"]["fingerprint"] == open_bundle("tiny.ndp").fingerprint
    assert record["engine"]["backend"] == "openvino"
    assert record["engine"]["hash"]
    figures = record["figures"]
    assert [row["kind"] for row in figures["kinds"]] == ["crack", "hole"]
    assert len(figures["images"]) == 10
    assert sum(figures["confusion"].values()) == 10
    assert 0 <= figures["overall"]["aupro"] <= 1
    assert not (folder / "out/explain.html").exists()
    assert (folder / "out/scores.png").read_bytes().startswith(b"\x89PNG")


def test_a_bundle_without_a_threshold_is_measured_all_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny_bundle(folder / "bare.ndp")
    update_manifest(open_bundle(folder / "bare.ndp"), lambda now: replace(now, thresholds={}))
    assert main(["evaluate", "bare.ndp", "data", "--threads", "1"]) == 4
    assert "no threshold for fp32" in capsys.readouterr().out
    record = json.loads((folder / "bare-evaluation/evaluation.json").read_text())
    assert record["figures"]["threshold"] is None
    assert record["figures"]["overall"]["image_rocauc"] is not None


def test_a_folder_that_is_no_data_is_one_line_on_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "tiny.ndp", "cache"]) == 1
    assert capsys.readouterr().err.startswith("ndp-rt: error: cache: expected a folder 'test'")


def test_a_missing_bundle_is_one_line_on_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "missing.ndp", "data"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_still_prints_the_figures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "taken").write_text("")
    assert main(["evaluate", "tiny.ndp", "data", "-o", "taken", "--threads", "1"]) == 1
    captured = capsys.readouterr()
    assert "all defects" in captured.out
    assert "cannot be written" in captured.err


def test_explain_writes_a_page_of_as_many_images_as_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "tiny.ndp", "data", "-o", "told", "--threads", "1", "--explain", "2"]) == 4
    assert "explain.html" in capsys.readouterr().out
    page = (folder / "told/explain.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 4
    assert "tiny.ndp on data" in page and "1 file was left out" in page


def test_explain_that_swallows_the_folder_says_what_it_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "tiny.ndp", "--explain", "data"])
    assert "--explain: expected a whole number from 1, got 'data'" in capsys.readouterr().err


def test_a_package_that_the_page_needs_is_missed_before_anything_is_inspected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ndp_rt.evaluate.explain", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["evaluate", "tiny.ndp", "data", "-o", "missed", "--threads", "1", "--explain"]) == 1
    assert "needs the package jinja2" in capsys.readouterr().err
    assert not (folder / "missed").exists()


def test_results_of_an_earlier_run_are_replaced_only_when_asked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data/test/hole/notes.txt").write_text("no image")
    arguments = ["evaluate", "tiny.ndp", "data", "-o", "kept", "--threads", "1"]
    assert main(arguments) == 4
    assert "1 entry left out: data/test/hole/notes.txt (no image)" in capsys.readouterr().out
    record = Path("kept/evaluation.json").read_bytes()
    assert json.loads(record)["figures"]["left_out"] == [{"path": "test/hole/notes.txt", "reason": "no image"}]
    assert main(arguments) == 1
    assert "got evaluation.json. Choose another folder with -o, or pass --overwrite" in capsys.readouterr().err
    assert Path("kept/evaluation.json").read_bytes() == record
    assert main([*arguments, "--overwrite"]) == 4

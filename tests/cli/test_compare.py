"""`ndp-rt compare` from end to end, on bundles of a very small network."""

import json
import shutil
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

QUICK = ["--threads", "1", "--seconds", "0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with tiny.ndp, bare.ndp (which has no threshold), data/, and a cache of its own."""
    root = tmp_path_factory.mktemp("compare command")
    make_tiny_bundle(root / "tiny.ndp")
    make_tiny_bundle(root / "bare.ndp")
    update_manifest(open_bundle(root / "bare.ndp"), lambda now: replace(now, thresholds={}))
    data = make_data(root / "data")
    write_png(data / "ground_truth/hole/a_mask.png", np.eye(6, 8, dtype=np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(root / "cache"))
        patch.chdir(root)
        yield root


def test_prints_a_row_a_bundle_and_writes_the_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "tiny.ndp", "bare.ndp", "data", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "tiny.ndp" in out and "bare.ndp" in out
    assert "bare.ndp has no threshold for fp32, so nothing was decided" in out
    assert "took turns in 10 rounds" in out and "to warm up" in out
    record = json.loads((folder / "data-comparison.json").read_text())
    assert (record["format"], record["format_version"]) == ("ndp-rt comparison", 1)
    assert record["command"] == "ndp-rt compare tiny.ndp bare.ndp data --precision fp32 --threads 1 --seconds 0.1"
    tiny, bare = record["rows"]
    assert sum(tiny["figures"]["confusion"].values()) == 4 and bare["figures"]["confusion"] is None
    assert tiny["figures"]["overall"]["image_rocauc"] == bare["figures"]["overall"]["image_rocauc"]
    assert all(row["timing"]["latency"]["p50_ms"] > 0 for row in record["rows"])
    assert all(row["timing"]["check"]["map_max_abs_difference"] >= 0 for row in record["rows"])


def test_what_is_left_out_is_said_and_ends_with_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "data", folder / "torn")
    (folder / "torn/test/good/c.png").write_bytes(b"no image")
    assert main(["compare", "tiny.ndp", "bare.ndp", "torn", "-o", "out/torn.json", *QUICK]) == 4
    assert "tiny.ndp: 1 file was left out" in capsys.readouterr().out
    assert json.loads((folder / "out/torn.json").read_text())["rows"][1]["figures"]["excluded"]


def test_a_file_that_is_there_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("mine")
    arguments = ["compare", "missing.ndp", "other.ndp", "data", *QUICK, "-o"]
    for more, said in (
        ([str(kept)], "kept.json: expected no file of an earlier comparison"),
        ([str(tmp_path)], "expected a file, got a folder"),
        ([str(kept), "--overwrite"], "missing.ndp: does not exist"),
    ):
        assert main([*arguments, *more]) == 1
        assert said in capsys.readouterr().err
    assert kept.read_text() == "mine"


@pytest.mark.nightly
def test_an_earlier_comparison_is_replaced_when_told(folder: Path) -> None:
    (folder / "kept.json").write_text("mine")
    assert main(["compare", "tiny.ndp", "bare.ndp", "data", "-o", "kept.json", *QUICK, "--overwrite"]) == 0
    assert json.loads((folder / "kept.json").read_text())["format"] == "ndp-rt comparison"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny.ndp", "data"], "expected two at least"),
        (["tiny.ndp", "cache", "data"], "cache"),
        (["tiny.ndp", "missing.ndp", "data"], "missing.ndp: does not exist"),
        (["tiny.ndp", "bare.ndp", "cache"], "cache: expected a folder 'test'"),
        (["tiny.ndp", "bare.ndp", "data", "--precision", "guess"], "got 'guess'"),
        (["tiny.ndp", "bare.ndp", "data", "--seconds", "0"], "seconds: expected a number above 0"),
    ],
)
def test_what_cannot_be_compared_is_one_line_on_stderr(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cache").mkdir(exist_ok=True)
    assert main(["compare", *arguments, "-o", "none.json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("ndp-rt: error: ") and captured.err.count("\n") == 1
    assert said in captured.err and captured.out == ""

"""Several workers share the images of `ndp-rt evaluate`: the figures are those of one process, bit for bit."""

import json
import shutil
from pathlib import Path

import pytest

from ndp_rt import Inspector, open_bundle
from ndp_rt.archive.crew import Job
from ndp_rt.archive.opening import Opening
from ndp_rt.cli import EXIT_ERROR, main
from ndp_rt.cli.demo_page import BUNDLE, IMAGES
from ndp_rt.evaluate.dataset import list_samples
from ndp_rt.evaluate.shared import ScoreTask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(IMAGES, tmp_path / "data"))
    (folder / "test" / "good" / "aa_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    next((folder / "ground_truth").rglob("*.png")).unlink()
    return folder


def test_figures_are_those_of_one_process(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    found = []
    for name, more in (("alone", []), ("shared", ["--workers", "2"])):
        out = tmp_path / name
        words = ["evaluate", str(BUNDLE), "data", "-o", str(out), "--threads", "1", "--smallest-area", "3", *more]
        assert main([*words, "--explain"]) == 4
        document = json.loads((out / "evaluation.json").read_text())
        text = json.dumps([document["figures"], document["engine"], document["counting"]])
        found.append((text.replace(str(data), "data"), (out / "explain.html").read_text()))
    assert found[0] == found[1]


def test_what_workers_die_of_is_left_out() -> None:
    samples = list_samples(IMAGES)
    opening = Opening.begin(open_bundle(BUNDLE), {"bundle": str(BUNDLE)}, [samples[0].path])
    task = ScoreTask(opening=opening)
    with Inspector.open(BUNDLE, threads=1) as inspector:
        scored, (exclusion,) = task.work(inspector, Job(shard=0, items=(samples[0],), is_deadly=True))
    assert scored == [] and exclusion.path == samples[0].path
    assert "the process ended" in exclusion.reason


def test_arguments_are_checked_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(BUNDLE), str(IMAGES), "-o", str(tmp_path / "out"), "--workers", "-2"]) == EXIT_ERROR
    assert "--workers: expected a number above 0, got -2" in capsys.readouterr().err

"""`ndp-rt inspect --workers`: an archive in shards, by processes; a second run, or one after a crash, does the rest."""

import contextlib
import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from pyarrow import parquet

from ndp_rt import open_bundle
from ndp_rt.archive.crew import Ready
from ndp_rt.archive.inspect_shard import Drawing
from ndp_rt.archive.opening import OneEngine, Opening, choose_probes
from ndp_rt.archive.run import ShardTask, describe_settings
from ndp_rt.archive.shards import ArchiveFile
from ndp_rt.cli import EXIT_ERROR, EXIT_OK, EXIT_UNREADABLE, main
from ndp_rt.errors import HostError
from ndp_rt.pipeline.sinks import list_parts
from ndp_rt.program.program import DecisionRules
from tests.archive.images import make_images, read_rows_of, remember, without_times
from tests.tiny_bundle import make_tiny_bundle


def inspect(tiny_bundle: Path, images: Path, out: Path, *more: str) -> int:
    return main(["inspect", str(tiny_bundle), str(images), "-o", str(out), "--threads", "1", *more])


@contextlib.contextmanager
def start(bundle: Path, images: Path, out: Path, *more: str) -> "Iterator[subprocess.Popen[str]]":
    """Run the command in a group of processes of its own, which ends with the block."""
    command = [sys.executable, "-m", "ndp_rt.cli", "inspect", str(bundle), str(images), "-o", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--threads", "1", *more], text=True, start_new_session=True, **pipes) as run:
        try:
            yield run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)


def look(run: "subprocess.Popen[str]", is_there: Callable[[], bool]) -> None:
    """Look again and again until something is there, or the run has ended."""
    while run.poll() is None and not is_there():
        time.sleep(0.01)


def list_workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
            with contextlib.suppress(psutil.Error):
                found += [child] if any("spawn_main" in word for word in child.cmdline()) else []
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, 120)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def alone(tiny_bundle: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("alone")
    assert inspect(tiny_bundle, images, out, "--format", "parquet") == EXIT_UNREADABLE
    return out / "results.parquet"


def read_alone(path: Path) -> list[dict[str, object]]:
    return sorted(without_times(parquet.read_table(path).to_pylist()), key=lambda row: str(row["path"]))


def test_rows_are_those_of_one_process(
    tiny_bundle: Path, images: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(tiny_bundle, images, tmp_path, "--workers", "2") == EXIT_UNREADABLE
    said = capsys.readouterr()
    assert without_times(read_rows_of(tmp_path)) == read_alone(alone)
    assert "120 images inspected" in said.out and "1 could not be read; 1 entry left out" in said.out
    assert "not read: " in said.err and (tmp_path / "left_out.txt").is_file()
    before = remember(tmp_path)
    assert inspect(tiny_bundle, images, tmp_path, "--workers", "1") == EXIT_UNREADABLE
    assert capsys.readouterr().out == said.out
    assert {name for name, state in remember(tmp_path).items() if state != before[name]} <= {
        path.name for path in list_parts(tmp_path) if any("broken" in row["path"] for row in read_part_rows(path))
    }


def read_part_rows(path: Path) -> list[dict[str, str]]:
    return list(parquet.read_table(path, columns=["path"]).to_pylist())


@pytest.mark.nightly
def test_two_bundles_and_two_settings_do_not_mix(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other.ndp", seed=5).path
    out, first = tmp_path / "out", images / "0"
    for bundle, more in ((tiny_bundle, []), (other, []), (tiny_bundle, ["--threshold", "0.1"])):
        inspect(bundle, first, out, "--workers", "1", *more)
    rows = read_rows_of(out)
    assert len(rows) == 3 * 40
    assert len({(row["path"], row["engine_hash"], row["threshold"]) for row in rows}) == 3 * 40
    names = {path.stem.rpartition("-")[2] for path in list_parts(out)}
    assert len(names) == 3


def test_relative_paths_become_absolute(
    tiny_bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    for path in (Path("0"), Path("..", images.name, "0")):
        inspect(tiny_bundle, path, tmp_path, "--workers", "1")
    assert len(read_rows_of(tmp_path)) == 40
    assert {row["path"] for row in read_rows_of(tmp_path)} == {str(path) for path in (images / "0").iterdir()}


def test_settings_are_told_apart(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    arguments = {"bundle": str(tiny_bundle), "precision": "fp32", "white_level": None, "threads": 1, "threshold": None}
    mask, other = np.zeros((4, 4), np.bool_), np.eye(4, dtype=np.bool_)
    changes: list[dict[str, object]] = [{}, {"threshold": 0.3}, {"ignore_mask": mask}, {"ignore_mask": other}]
    changes += [{"white_level": 4095}, {"contours": True}, {"mm_per_pixel": 0.5}, {"precision": "fp32", "plan": "a"}]
    drawings = [Drawing(), Drawing(is_tiled=True), Drawing(with_maps=True)]
    found = [
        describe_settings(bundle, arguments | change, drawing)
        for change, drawing in itertools.product(changes, drawings)
    ]
    assert len(set(found)) == len(changes) * len(drawings)
    assert describe_settings(bundle, arguments | {"threads": 7}, Drawing()) == found[0]


@pytest.mark.nightly
def test_overwrite_begins_anew(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    inspect(tiny_bundle, images / "0", out, "--workers", "1", "--overlays", "--maps")
    assert len(list((out / "overlays").glob("*/*.png"))) == len(list((out / "maps").glob("*/*.npy"))) == 40
    assert inspect(tiny_bundle, images / "1", out) == EXIT_ERROR  # one process keeps off an archive
    inspect(tiny_bundle, images / "1", out, "--workers", "1", "--overwrite")
    assert {Path(row["path"]).parent.name for row in read_rows_of(out)} == {"1"}
    assert not list((out / "overlays").glob("*/*.png"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--workers", "0"], "--workers: expected a number above 0, got 0"),
        (["--workers", "1", "--format", "csv"], "--format: expected parquet, which several workers write, got csv"),
        (["--worker-cpus", "1"], "expected --ray with them"),
        (["--ray", "--worker-gpus", "-1"], "--worker-gpus: expected a number above 0, got -1"),
        (["--workers", "1", "--fallback"], "--fallback: expected none with several workers"),
        (["--ray", "--device", "cuda:1"], "expected cpu or cuda with --ray"),
        (["--workers", "1", "--mm-per-pixel", "-1"], "expected mm_per_pixel above 0"),
    ],
)
def test_refuses_arguments_that_do_not_fit(
    tiny_bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert inspect(tiny_bundle, images, tmp_path / "out", *more) == EXIT_ERROR
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_machine_that_lacks_something_says_what(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    archive = ArchiveFile.open(tmp_path, 1)
    probes = [Path("/moved/away.png"), images / "broken.png"]
    bundle, arguments = open_bundle(tiny_bundle), {"bundle": str(tiny_bundle)}
    began = Opening.begin(bundle, arguments, probes)

    def open_task(out: Path = tmp_path, **changes: object) -> None:
        opening = replace(began, **changes)  # type: ignore[arg-type]
        task = ShardTask(opening=opening, out=out, run=archive.run, shard_count=16, settings="", drawing=Drawing())
        task.open().close()

    open_task()
    with pytest.raises(HostError, match=r"expected the bundle /nowhere\.ndp there too, got none"):
        open_task(arguments={"bundle": "/nowhere.ndp"})
    with pytest.raises(HostError, match=r"expected the bundle .* to be 0123456789ab, .* got .* Copy the same"):
        open_task(fingerprint="0123456789abcdef")
    with pytest.raises(HostError, match=r"thresholds .* to be \(0\.6, 7\.0\), .* got \(0\.6, None\)\. Copy"):
        open_task(thresholds=(bundle.threshold("fp32").value, 7.0))
    with pytest.raises(HostError, match=r"expected to find the images, got none at /nowhere/a\.png\. Mount"):
        open_task(probes=[Path("/nowhere/a.png"), Path("/nowhere/" + 300 * "b")])
    with pytest.raises(HostError, match=r"to be the folder where the run began, got another"):
        open_task(out=tmp_path / "other")
    ArchiveFile.open(tmp_path, 1)  # another run has begun
    with pytest.raises(HostError, match=r"to be the folder where the run began, got another"):
        open_task()


def test_images_that_machines_are_known_by(images: Path) -> None:
    files = sorted((images / "0").iterdir())
    found = choose_probes([Path("/gone.png"), Path("/" + 300 * "a"), Path(f"{files[0]}[1]"), *files])
    assert found[0] == files[0] and len(set(found)) == len(found) > 10
    assert set(found) <= set(files)


def test_all_workers_of_a_run_have_one_engine() -> None:
    one = OneEngine()
    one.accept(Ready(machine="a", engine_hash="e" * 64))
    with pytest.raises(HostError, match=r"b: expected the engine eeeeeeeeeeee, .* got ffffffffffff"):
        one.accept(Ready(machine="b", engine_hash="f" * 64))
    assert one.hash == "e" * 64


def test_an_archive_takes_another_engine_in_a_later_run(tmp_path: Path) -> None:
    ArchiveFile.open(tmp_path, 1)
    assert "engine" not in (tmp_path / "archive.json").read_text()


@pytest.mark.parametrize("place", ["ndp_rt.__version__", "cv2.__version__"])
def test_rows_of_another_version_have_files_of_their_own(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bundle = open_bundle(tiny_bundle)
    arguments = {"bundle": str(tiny_bundle), "precision": "fp32", "white_level": None}
    before = describe_settings(bundle, arguments, Drawing())
    monkeypatch.setattr(place, "0.0.1")
    assert describe_settings(bundle, arguments, Drawing()) != before


@pytest.mark.parametrize("given", [{}, {"threshold": 0.3}])
def test_rows_of_another_threshold_of_the_map_have_files_of_their_own(
    tiny_bundle: Path, given: dict[str, float]
) -> None:
    bundle = open_bundle(tiny_bundle)
    arguments = {"bundle": str(tiny_bundle), "precision": "fp32", "white_level": None, **given}
    threshold = bundle.threshold("fp32")
    keys = set()
    for value in (None, 5.0, 7.0):
        thresholds = {"fp32": replace(threshold, map_value=value)}
        rules = DecisionRules(smooth="none", score="output")
        changed = replace(bundle, manifest=replace(bundle.manifest, thresholds=thresholds, decision=rules))
        keys.add(describe_settings(changed, arguments, Drawing()))
    assert len(keys) == 3


def test_a_full_disk_is_one_error_and_leaves_nothing_half_written(
    tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource", reason="needs limits of Unix")
    command = [
        sys.executable,
        "-m",
        "ndp_rt.cli",
        "inspect",
        str(tiny_bundle),
        str(images),
        "-o",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*command, "--workers", "2", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
    )
    assert done.returncode == EXIT_ERROR
    assert done.stderr.count("error:") == 1 and "cannot be written (File too large). Free some space" in done.stderr
    assert list_parts(tmp_path / "out") == [] and not list((tmp_path / "out").glob("*.tmp"))
    assert inspect(tiny_bundle, images, tmp_path / "out", "--workers", "1") == EXIT_UNREADABLE
    assert len(read_rows_of(tmp_path / "out")) == 121


def wait_until_ended(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.wait()


def test_a_killed_run_ends_its_workers_and_the_next_one_does_the_rest(
    tiny_bundle: Path, images: Path, alone: Path, tmp_path: Path
) -> None:
    with start(tiny_bundle, images, tmp_path, "--workers", "2") as run:
        look(run, lambda: bool(list_parts(tmp_path)))
        workers = list_workers(run)
        run.kill()
        wait_until_ended(workers)
    before = remember(tmp_path)
    for part in list_parts(tmp_path):
        parquet.read_table(part)  # whole
    assert inspect(tiny_bundle, images, tmp_path, "--workers", "1") == EXIT_UNREADABLE
    assert without_times(read_rows_of(tmp_path)) == read_alone(alone)
    after = remember(tmp_path)
    kept = [name for name in before if not any("broken" in row["path"] for row in read_part_rows(tmp_path / name))]
    assert [after[name] for name in kept] == [before[name] for name in kept]
    assert not list(tmp_path.glob(".ndp-rt-*.tmp"))


@pytest.mark.nightly
def test_killed_workers_cost_no_row(tiny_bundle: Path, images: Path, alone: Path, tmp_path: Path) -> None:
    with start(tiny_bundle, images, tmp_path, "--workers", "2") as run:
        for part_count in (1, 3, 5):
            look(run, lambda: len(list_parts(tmp_path)) >= part_count and bool(list_workers(run)))  # noqa: B023
            for worker in list_workers(run)[:1]:
                worker.kill()
        said, complained = run.communicate()
    assert run.returncode == EXIT_UNREADABLE, complained
    assert "120 images inspected" in said
    assert without_times(read_rows_of(tmp_path)) == read_alone(alone)


@pytest.mark.nightly
def test_ctrl_c_ends_the_workers_too(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    with start(tiny_bundle, images, tmp_path, "--workers", "1") as run:
        look(run, lambda: bool(list_workers(run)))
        workers = list_workers(run)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        complained = run.communicate()[1]
        wait_until_ended(workers)
    assert run.returncode == 130
    lines = complained.splitlines()[1:]
    assert lines[0].startswith("ndp-rt: stopped after ") and lines[1:] == ["ndp-rt: interrupted"]


def test_one_process_writes_what_it_wrote_before(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    assert inspect(tiny_bundle, images / "0", tmp_path) == EXIT_OK
    with (tmp_path / "results.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 40

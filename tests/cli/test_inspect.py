"""`ndp-rt inspect`: rows, exit codes, and what is left when a run ends early."""

import csv
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt.bundle.manifest import encode_manifest, read_manifest
from ndp_rt.cli import main
from ndp_rt.files import locking
from ndp_rt.program.manifest import TrainingRange
from tests.images.encodings import join_png_chunks, list_png_chunks

COMMAND = [sys.executable, "-m", "ndp_rt.cli"]


@pytest.fixture
def photographs(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with two subfolders that hold files of the same names."""
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for name in ("0.png", "1.png"):
            write_noise(tmp_path / "in" / folder / name, rng)
    return tmp_path / "in"


def write_noise(path: Path, rng: np.random.Generator, side: int = 70) -> None:
    assert cv2.imwrite(str(path), rng.integers(0, 256, (side, side + 10, 3), dtype=np.uint8))


def add_bad_files(folder: Path) -> None:
    content = (folder / "a" / "0.png").read_bytes()
    (folder / "a" / "00-cut.png").write_bytes(content[: len(content) // 2])
    (folder / "a" / "empty.jpg").write_bytes(b"")
    (folder / "b" / "text.png").write_text("no image")
    (folder / "b" / "notes.txt").write_text("not looked at")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_table(folder: Path, kind: str) -> list[dict[str, Any]]:
    path = folder / f"results.{kind}"
    if kind == "parquet":
        from pyarrow import parquet

        return parquet.read_table(path).to_pylist()
    if kind == "jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    rows: list[dict[str, Any]] = []
    for row in read_csv(path):
        row["defects"] = json.loads(row["defects"]) if row["defects"] else None
        rows.append({name: value or None for name, value in row.items()} | {"defects": row["defects"]})
    return rows


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("extra", [(), ("--batch", "3"), ("--plan", "staged"), ("--tiles",)])
def test_goes_on_past_unreadable_files_and_reports_them(
    tiny_bundle: Path, photographs: Path, tmp_path: Path, kind: str, extra: tuple[str, ...]
) -> None:
    add_bad_files(photographs)
    missing = str(tmp_path / "missing.png")
    out = tmp_path / "out"
    code = main(["inspect", str(tiny_bundle), str(photographs), missing, "-o", str(out), "--format", kind, *extra])
    assert code == 4
    rows = read_table(out, kind)
    names = ["a/0.png", "a/00-cut.png", "a/1.png", "a/empty.jpg", "b/0.png", "b/1.png", "b/text.png"]
    assert [row["path"] for row in rows] == [str(photographs / name) for name in names] + [missing]
    errors = {Path(row["path"]).name: row["error"] for row in rows if row["status"] == "error"}
    assert set(errors) == {"00-cut.png", "empty.jpg", "text.png", "missing.png"}
    assert "cut short" in errors["00-cut.png"] and "empty" in errors["empty.jpg"]
    for row in rows:
        assert (row["status"] == "ok") == (row["score"] is not None) == (row["decision"] in ("good", "defect"))
    assert sorted(os.listdir(out)) == ["left_out.txt", f"results.{kind}"]
    columns = ["score", "threshold", "preprocess_ms", "engine_ms", "postprocess_ms", "total_ms", "engine_hash"]
    assert all(rows[0][name] is not None for name in columns)
    assert ("encoder_ms" in rows[0]) == ("staged" in extra)


def test_all_ways_of_running_give_the_same_scores(tiny_bundle: Path, photographs: Path, tmp_path: Path) -> None:
    tables = []
    for index, extra in enumerate([(), ("--batch", "3"), ("--overlays", "--maps")]):
        out = tmp_path / f"out{index}"
        assert main(["inspect", str(tiny_bundle), str(photographs), "-o", str(out), "--format", "csv", *extra]) == 0
        tables.append([row["score"] for row in read_csv(out / "results.csv")])
    assert tables[0] == tables[1] == tables[2]


def test_exits_with_3_and_lists_defects_in_millimetres(tiny_bundle: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["-o", str(out), "--threshold", "0", "--mm-per-pixel", "0.5", "--format", "jsonl"]
    assert main(["inspect", str(tiny_bundle), str(photographs / "a" / "0.png"), *arguments]) == 3
    (row,) = read_table(out, "jsonl")
    assert row["decision"] == "defect" and row["defect_count"] == 1 and row["threshold"] == 0
    (defect,) = row["defects"]
    assert (defect["width_px"], defect["height_px"]) == (80, 70)
    assert (defect["width_mm"], defect["area_mm2"]) == (40.0, 80 * 70 / 4)


@pytest.mark.parametrize("threshold", ["inf", "-inf", "nan", "high"])
def test_a_threshold_that_no_table_holds_is_wrong_usage(
    tiny_bundle: Path, photographs: Path, tmp_path: Path, threshold: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(tiny_bundle), str(photographs), "-o", str(tmp_path / "out"), f"--threshold={threshold}"])
    assert end.value.code == 2 and "expected a finite number" in capsys.readouterr().err


def test_files_of_the_same_name_get_pictures_of_their_own(tiny_bundle: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["-o", str(out), "--overlays", "--maps", "--format", "jsonl"]
    assert main(["inspect", str(tiny_bundle), str(photographs), *arguments]) == 0
    rows = read_table(out, "jsonl")
    assert len({row["overlay"] for row in rows}) == len({row["map"] for row in rows}) == 4
    for row in rows:
        picture = cv2.imread(str(out / row["overlay"]))
        assert picture is not None and picture.shape[1] > 4 * 200
        anomaly_map = np.load(out / row["map"])
        assert anomaly_map.dtype == np.float32 and anomaly_map.shape == (row["height_px"], row["width_px"])


def test_the_longest_names_have_pictures_too(tiny_bundle: Path, photographs: Path, tmp_path: Path) -> None:
    paths = [photographs / f"{letter * (251 // len(letter.encode()))}.png" for letter in ("n", "ü")]
    for path in paths:
        os.link(photographs / "a" / "0.png", path)
    out = tmp_path / "out"
    arguments = [*map(str, paths), "-o", str(out), "--overlays", "--maps"]
    assert main(["inspect", str(tiny_bundle), *arguments]) == 0
    for row in read_table(out, "csv"):
        assert (out / row["overlay"]).is_file() and (out / row["map"]).is_file()


def test_takes_patterns_and_each_file_once(tiny_bundle: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = [str(photographs / "**" / "1.png"), str(photographs / "a"), str(photographs / "a" / "0.png")]
    assert main(["inspect", str(tiny_bundle), *paths, "-o", str(out), "--format", "csv"]) == 0
    names = [Path(row["path"]).relative_to(photographs).as_posix() for row in read_csv(out / "results.csv")]
    assert names == ["a/1.png", "b/1.png", "a/0.png"]


def test_does_not_inspect_its_own_pictures_or_a_bundles(tiny_bundle: Path, photographs: Path) -> None:
    shutil.copytree(tiny_bundle, photographs / "old.ndp")
    out = photographs / "out"
    for arguments in ([], ["--overwrite"]):
        code = main(["inspect", str(tiny_bundle), str(photographs), "-o", str(out), "--overlays", *arguments])
        assert code == 0 and len(read_table(out, "csv")) == 4


def test_parquet_without_pyarrow_says_at_once_what_to_install(
    tiny_bundle: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    arguments = ["inspect", str(tiny_bundle), str(photographs / "a"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--format", "parquet"]) == 1
    said = "writing Parquet needs the package pyarrow, which is not installed. Run: pip install 'ndp-rt[parquet]'"
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(arguments) == 0 and len(read_table(tmp_path / "out", "csv")) == 2


def test_refuses_to_overwrite_unless_told(
    tiny_bundle: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["inspect", str(tiny_bundle), str(photographs / "a"), "-o", str(out), "--format"]
    assert main([*arguments, "csv", "--overlays"]) == 0
    before = (out / "results.csv").read_bytes()
    assert main([*arguments, "parquet"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "results.csv").read_bytes() == before
    assert main([*arguments, "parquet", "--overwrite"]) == 0
    assert (out / "results.parquet").exists()
    assert not (out / "results.csv").exists() and not list((out / "overlays").glob("*"))


def test_what_a_folder_has_besides_images_is_counted_and_named(
    tiny_bundle: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = photographs / "a", photographs / "out"
    count = len(list(folder.iterdir()))
    (folder / "image without suffix").write_bytes(next(folder.glob("*.png")).read_bytes())
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    arguments = ["inspect", str(tiny_bundle), str(folder), "-o", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert f"{count + 1} images inspected" in said.out and "; 2 entries left out." in said.out
    assert f"2 entries left out: {folder / '.hidden.png'} (is hidden), {folder / 'notes.txt'} (no image)" in said.err
    assert (out / "left_out.txt").read_text().splitlines()[1] == f"{folder / 'notes.txt'} (no image)"
    (folder / "lot.gif").write_bytes(b"GIF89a")
    assert main([*arguments, "--overwrite"]) == 4
    assert "got GIF. Convert it" in read_csv(out / "results.csv")[-1]["error"]


def set_range(bundle: Path, trained: TrainingRange) -> None:
    manifest = dataclasses.replace(read_manifest(bundle), training_range=trained)
    (bundle / "manifest.json").write_bytes(encode_manifest(manifest))


def test_images_outside_of_what_training_saw_are_told_and_a_white_level_mends_it(
    tiny_bundle: Path, tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "levels.ndp"
    shutil.copytree(tiny_bundle, bundle)
    set_range(bundle, TrainingRange(darkest=0.0, darkest_most=0.1, brightest_least=0.9, brightest=1.0))
    pixels = rng.integers(0, 4096, (70, 70), np.uint16)
    for name, image in (("deep", pixels), ("eight", np.rint(pixels / 4095 * 255).astype(np.uint8))):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    paths = [str(tmp_path / "deep.png"), str(tmp_path / "eight.png")]
    assert main(["inspect", str(bundle), *paths, "-o", str(tmp_path / "plain")]) == 0
    assert "1 of 2 images are darker than all that training saw" in capsys.readouterr().err
    assert [row["brightness"] for row in read_csv(tmp_path / "plain/results.csv")] == ["darker", "as trained"]
    head, *rest = list_png_chunks((tmp_path / "deep.png").read_bytes())
    (tmp_path / "noted.png").write_bytes(join_png_chunks([head, (b"sBIT", b"\x0c"), *rest]))
    arguments = ["inspect", str(bundle), "--white-level", "auto", paths[1]]
    assert main([*arguments, paths[0], "-o", str(tmp_path / "guessed")]) == 0
    assert "white level: the bundle's, since the 16-bit files do not all note" in capsys.readouterr().err
    assert [row["brightness"] for row in read_csv(tmp_path / "guessed/results.csv")] == ["as trained", "darker"]
    paths[0] = str(tmp_path / "noted.png")
    for level, said in (("4095", ""), ("auto", "white level 4095: the files say 12 bits")):
        out = tmp_path / f"with {level}"
        assert main(["inspect", str(bundle), *paths, "-o", str(out), "--white-level", level]) == 0
        assert said in capsys.readouterr().err
        deep, eight = read_csv(out / "results.csv")
        assert deep["brightness"] == eight["brightness"] == "as trained"
        assert float(deep["score"]) == pytest.approx(float(eight["score"]), abs=1e-2)
    with pytest.raises(SystemExit):
        main(["inspect", str(bundle), *paths, "-o", str(tmp_path / "x"), "--white-level", "65536"])


def test_a_second_run_into_the_same_folder_is_refused(
    tiny_bundle: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photographs / "out"
    arguments = ["inspect", str(tiny_bundle), str(photographs / "a"), "-o", str(out)]
    with locking(out):
        assert main(arguments) == 1
        assert f"{out}: expected no other run to write to it" in capsys.readouterr().err
        assert not (out / "results.csv").exists()
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("make_paths", "message"),
    [
        (lambda folder: [str(folder / "nothing*.png")], "no file matches"),
        (lambda folder: [str(folder / "none")], "expected images, here or in subfolders, got none"),
        (lambda folder: [str(folder / "gone.png")], "does not exist"),
    ],
)
def test_says_so_when_there_is_nothing_to_inspect(
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_paths: Callable[[Path], list[str]],
    message: str,
) -> None:
    (tmp_path / "none").mkdir()
    assert main(["inspect", str(tiny_bundle), *make_paths(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_says_that_out_is_a_folder(
    tiny_bundle: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_bundle), str(photographs), "-o", str(tmp_path / "out.csv")]) == 1
    assert "--format csv" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["inspect", str(tiny_bundle), str(photographs), "-o", str(tmp_path / "file")]) == 1
    assert "expected a folder, got a file" in capsys.readouterr().err


def test_huge_images_become_a_row_with_the_reason(tiny_bundle: Path, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "huge.png"), np.zeros((1, 30_000), np.uint8))
    assert cv2.imwrite(str(tmp_path / "pixel.png"), np.zeros((1, 1), np.uint8))
    out = tmp_path / "out"
    paths = [str(tmp_path / "huge.png"), str(tmp_path / "pixel.png")]
    assert main(["inspect", str(tiny_bundle), *paths, "-o", str(out), "--format", "csv"]) == 4
    huge, pixel = read_csv(out / "results.csv")
    assert "30000" in huge["error"] and pixel["status"] == "ok"


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_ctrl_c_keeps_the_rows_that_are_done(
    tiny_bundle: Path, tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_noise(folder / "0000.png", rng, side=1000)
    for index in range(1, 4000):
        os.link(folder / "0000.png", folder / f"{index:04d}.png")
    assert main(["inspect", str(tiny_bundle), str(folder / "0000.png"), "-o", str(tmp_path / "first")]) == 0
    out = tmp_path / "out"
    written = out / ("results.csv" if kind == "csv" else "results.parquet.part.jsonl")
    run = subprocess.Popen(
        [*COMMAND, "inspect", str(tiny_bundle), str(folder), "-o", str(out), "--format", kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and (not written.exists() or written.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, complaints = run.communicate(timeout=300)
    assert run.returncode == 130, complaints
    rows = read_table(out, kind)
    assert 4 <= len(rows) < 4000
    assert all(row["status"] == "ok" for row in rows)
    assert "stopped after" in complaints and "Traceback" not in complaints
    assert os.listdir(out) == [f"results.{kind}"]


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_full_disk_keeps_the_rows_that_are_done(
    tiny_bundle: Path, tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_noise(folder / "00.png", rng)
    for index in range(1, 40):
        os.link(folder / "00.png", folder / f"{index:02d}.png")
    assert main(["inspect", str(tiny_bundle), str(folder / "00.png"), "-o", str(tmp_path / "first")]) == 0
    out, limit = tmp_path / "out", 3000
    run = subprocess.run(
        [*COMMAND, "inspect", str(tiny_bundle), str(folder), "-o", str(out), "--format", kind],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert run.returncode == 1, run.stderr
    assert "ndp-rt: error:" in run.stderr and "cannot be written" in run.stderr and "Traceback" not in run.stderr
    left = out / (f"results.{kind}" if kind != "parquet" else "results.parquet.part.jsonl")
    assert os.listdir(out) == [left.name]
    content = left.read_bytes()
    assert content.endswith(b"\n") and len(content) <= limit
    rows = read_csv(left) if kind == "csv" else [json.loads(line) for line in content.splitlines()]
    assert len(rows) >= 2 and all(row["score"] for row in rows)

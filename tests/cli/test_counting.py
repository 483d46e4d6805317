"""--ignore, --smallest-area and --contours: `inspect`, `evaluate` and `set-threshold` agree on what counts."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector, open_bundle, read_image
from ndp_rt.cli import main
from ndp_rt.evaluate.metrics import measure_aupro, measure_pixel_rocauc
from tests.evaluate.test_dataset import write_png

SIDE = 64
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[:, SIDE // 2 :] = 255


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with images of one size in in/, and mask.png."""
    (tmp_path / "in").mkdir()
    for index in range(30):
        write_png(tmp_path / f"in/{index:02d}.png", rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
    write_png(tmp_path / "mask.png", MASK)
    return tmp_path


def read_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("extra", [(), ("--batch", "3"), ("--tiles",)])
def test_inspect_leaves_out_what_does_not_count(tiny_bundle: Path, folder: Path, extra: tuple[str, ...]) -> None:
    settings = ["--ignore", str(folder / "mask.png"), "--smallest-area", "12", "--threshold", "0.55"]
    out = folder / "out"
    main(["inspect", str(tiny_bundle), str(folder / "in"), "-o", str(out), "--format", "jsonl", *settings, *extra])
    with Inspector.open(tiny_bundle, threshold=0.55, ignore_mask=MASK, smallest_area_px=12) as opened:
        for row in read_rows(out):
            expected = opened.inspect(read_image(row["path"]))
            assert row["score"] == pytest.approx(expected.score, abs=1e-5)
            assert row["decision"] == ("defect" if expected.is_defect else "good")
            assert [one["area_px"] for one in row["defects"]] == [one.area_px for one in expected.defects]
            assert all("contour" not in one for one in row["defects"])


@pytest.mark.parametrize("extra", [(), ("--batch", "3"), ("--tiles",)])
def test_an_image_of_another_size_becomes_a_row_with_an_error(
    tiny_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str], extra: tuple[str, ...]
) -> None:
    write_png(folder / "in/05-wide.png", np.zeros((SIDE, SIDE + 6), np.uint8))
    out = folder / "out"
    arguments = ["inspect", str(tiny_bundle), str(folder / "in"), "-o", str(out), "--format", "jsonl"]
    assert main([*arguments, "--ignore", str(folder / "mask.png"), *extra]) == 4
    rows = read_rows(out)
    assert [row["status"] for row in rows].count("error") == 1 and len(rows) == 31
    (row,) = [row for row in rows if row["status"] == "error"]
    assert row["path"].endswith("05-wide.png")
    assert "expected 64 x 64 pixels, as the ignore mask has, got 64 x 70" in row["error"]
    assert "50.0% of each picture is ignored" in capsys.readouterr().err


def test_an_area_in_mm2_is_one_in_pixels(tiny_bundle: Path, folder: Path) -> None:
    scores = []
    for name, settings in (("px", ["--smallest-area", "12"]), ("mm", ["--smallest-area-mm2", "3"])):
        arguments = ["inspect", str(tiny_bundle), str(folder / "in"), "-o", str(folder / name), "--format", "jsonl"]
        main([*arguments, "--mm-per-pixel", "0.5", *settings])
        scores.append([row["score"] for row in read_rows(folder / name)])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_contours_are_lists_of_points(tiny_bundle: Path, folder: Path, kind: str) -> None:
    out = folder / "out"
    arguments = ["inspect", str(tiny_bundle), str(folder / "in/00.png"), "-o", str(out), "--format", kind]
    assert main([*arguments, "--threshold", "0.5", "--contours"]) == 3
    with Inspector.open(tiny_bundle, threshold=0.5, contours=True) as opened:
        expected = opened.inspect(read_image(folder / "in/00.png"))
    if kind == "parquet":
        from pyarrow import parquet

        (row,) = parquet.read_table(out / "results.parquet").to_pylist()
    elif kind == "jsonl":
        (row,) = read_rows(out)
    else:
        with (out / "results.csv").open(newline="") as stream:
            (row,) = csv.DictReader(stream)
        row["defects"] = json.loads(row["defects"])
    contours = [one.contour.tolist() for one in expected.defects if one.contour is not None]
    assert [one["contour"] for one in row["defects"]] == contours and contours


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--ignore", "MISSING.png"], "MISSING.png"),
        (["--ignore", "black.png"], "got 0 alone"),
        (["--smallest-area-mm2", "3"], "expected mm_per_pixel with it"),
        (["--smallest-area", "4", "--smallest-area-mm2", "3", "--mm-per-pixel", "1"], "got both"),
    ],
)
def test_refuses_settings_in_one_sentence(
    tiny_bundle: Path,
    folder: Path,
    settings: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    write_png(folder / "black.png", np.zeros((SIDE, SIDE), np.uint8))
    assert main(["inspect", str(tiny_bundle), "in", "-o", "out", *settings]) == 1
    assert said in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_calibrated_threshold_fits_inspection_with_the_same_arguments(tiny_bundle: Path, folder: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, folder / "copy.ndp"))
    counting = ["--ignore", str(folder / "mask.png"), "--smallest-area", "9"]
    calibrate = ["set-threshold", str(bundle), "--calibrate", str(folder / "in"), "--false-alarm-rate", "0.1"]
    assert main([*calibrate, *counting, "--no-variations"]) == 0
    spec = open_bundle(bundle).threshold("fp32")
    assert spec.note.endswith(
        "; calibrated with an ignore mask over 50.0% and a smallest area of 9 px: inspect with the same"
    )
    arguments = ["inspect", str(bundle), str(folder / "in"), "--format", "jsonl"]
    assert main([*arguments, "-o", str(folder / "same"), *counting]) == 0
    assert max(row["score"] for row in read_rows(folder / "same")) == pytest.approx(spec.value, rel=1e-6)
    assert main([*arguments, "-o", str(folder / "all")]) == 3  # which a threshold for half the picture does not fit


def test_variations_of_calibration_leave_out_what_moves_with_the_picture(tiny_bundle: Path, folder: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, folder / "copy.ndp"))
    calibrate = ["set-threshold", str(bundle), "--calibrate", str(folder / "in")]
    values = []
    for counting in ([], ["--ignore", str(folder / "mask.png")]):
        assert main([*calibrate, *counting]) == 0
        values.append(open_bundle(bundle).threshold("fp32").value)
    assert values[1] < values[0]


def test_calibration_names_an_image_of_another_size(
    tiny_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    write_png(folder / "in/05-wide.png", rng.integers(0, 256, (SIDE, SIDE + 6), dtype=np.uint8))
    bundle = Path(shutil.copytree(tiny_bundle, folder / "copy.ndp"))
    arguments = ["set-threshold", str(bundle), "--calibrate", str(folder / "in"), "--ignore", str(folder / "mask.png")]
    assert main(arguments) == 1
    assert "05-wide.png: image: expected 64 x 64 pixels" in capsys.readouterr().err
    assert main(["set-threshold", str(bundle), "0.5", "--smallest-area", "3"]) == 1
    assert "expected --calibrate with them, got none" in capsys.readouterr().err
    assert main(["set-reference", str(bundle), str(folder / "in/00.png"), "--ignore", str(folder / "mask.png")]) == 1
    assert "expected --calibrate with them, got none" in capsys.readouterr().err


def test_evaluate_counts_no_pixel_that_is_ignored(
    tiny_bundle: Path, folder: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    data = folder / "data"
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[5:25, 5:60] = 255
    for kind in ("good", "crack"):
        for index in range(3):
            write_png(data / f"test/{kind}/{index}.png", rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
            if kind == "crack":
                write_png(data / f"ground_truth/{kind}/{index}_mask.png", truth)
    write_png(data / "test/good/wide.png", rng.integers(0, 256, (SIDE, SIDE + 2), dtype=np.uint8))
    arguments = ["evaluate", str(tiny_bundle), "data", "-o", "out", "--explain", "--ignore", "mask.png"]
    assert main([*arguments, "--smallest-area", "12"]) == 4
    record = json.loads((folder / "out/evaluation.json").read_text())
    assert record["counting"] == {"ignored_share": 0.5, "smallest_area_px": 12}
    assert record["command"].endswith("--ignore mask.png --smallest-area 12")
    (excluded,) = record["figures"]["excluded"]
    assert excluded["path"] == "test/good/wide.png" and "as the ignore mask has" in excluded["reason"]
    maps, masks = [], []  # of the left half alone
    with Inspector.open(tiny_bundle, ignore_mask=MASK, smallest_area_px=12) as opened:
        for one in record["figures"]["images"]:
            result = opened.inspect(cv2.imread(str(data / one["path"])))
            assert one["score"] == pytest.approx(result.score, abs=1e-5)
            maps.append(result.anomaly_map[:, : SIDE // 2])
            masks.append((truth if one["kind"] == "crack" else np.zeros_like(truth))[:, : SIDE // 2] != 0)
    overall = record["figures"]["overall"]
    assert overall["pixel_rocauc"] == pytest.approx(measure_pixel_rocauc(maps, masks), abs=1e-5)
    assert overall["aupro"] == pytest.approx(measure_aupro(maps, masks), abs=1e-5)

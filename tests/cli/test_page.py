"""`--page` of the commands: one page of files with several, or each with a row of its own."""

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from ndp_rt import Inspector, read_image
from ndp_rt.bench.timed.service import Timed, measure_accuracy
from ndp_rt.bundle.open import open_bundle
from ndp_rt.cli import bench, main, quantise
from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.images.preprocess import preprocess
from ndp_rt.quantise.samples import read_labelled
from tests.images.encodings import draw_surface, encode, encode_tiff


@pytest.fixture
def scans(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with a scan of two pages and a photograph."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_scan(folder / "scan.tif", rng)
    (folder / "single.png").write_bytes(encode("png", draw_surface(rng, 70, 80, 3)))
    return folder


def write_scan(path: Path, rng: np.random.Generator) -> None:
    pages = np.stack([draw_surface(rng, 70, 80, 3) for _ in range(2)])
    path.write_bytes(encode_tiff(pages, photometric="rgb"))


def inspect(bundle: Path, path: Path | str, out: Path, *options: str) -> tuple[int, list[dict[str, str]]]:
    code = main(["inspect", str(bundle), str(path), "-o", str(out), "--threads", "1", *options])
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        return code, list(csv.DictReader(stream))


def test_inspect_refuses_a_file_of_several_pages_with_how_to_choose(
    tiny_bundle: Path, scans: Path, tmp_path: Path
) -> None:
    code, rows = inspect(tiny_bundle, scans, tmp_path / "out")
    assert code == 4 and [row["status"] for row in rows] == ["error", "ok"]
    assert "a TIFF with 2 pages. Choose one: --page N" in rows[0]["error"]


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("extra", [(), ("--batch", "2"), ("--tiles",)])
def test_inspect_gives_every_page_a_row_and_pictures_of_its_own(
    tiny_bundle: Path, scans: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    code, rows = inspect(tiny_bundle, scans, tmp_path / "out", "--page", "all", "--overlays", "--maps", *extra)
    assert code == 0
    assert [Path(row["path"]).name for row in rows] == ["scan.tif[1]", "scan.tif[2]", "single.png"]
    assert rows[0]["overlay"] == "overlays/00000-scan-page1.png" and rows[1]["map"] == "maps/00001-scan-page2.npy"
    assert all((tmp_path / "out" / row[name]).is_file() for row in rows for name in ("overlay", "map"))
    if extra != ("--tiles",):
        with Inspector.open(tiny_bundle, threads=1) as inspector:
            for row in rows:
                assert float(row["score"]) == pytest.approx(inspector.inspect(read_image(row["path"])).score, abs=1e-5)
        assert rows[0]["score"] != rows[1]["score"]


def test_inspect_takes_one_page_and_says_where_there_is_none(tiny_bundle: Path, scans: Path, tmp_path: Path) -> None:
    _, every = inspect(tiny_bundle, scans, tmp_path / "all", "--page", "all")
    code, rows = inspect(tiny_bundle, scans, tmp_path / "second", "--page", "2")
    assert code == 4 and rows[0]["score"] == every[1]["score"]
    assert "single.png[2]: expected a page from 1 to 1, got 2" in rows[1]["error"]
    code, rows = inspect(tiny_bundle, f"{scans / 'scan.tif'}[2]", tmp_path / "named")
    assert code == 0 and [row["score"] for row in rows] == [every[1]["score"]]


def test_inspect_gives_a_page_that_is_not_read_a_row_and_goes_on(
    tiny_bundle: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    scan = tmp_path / "scan.tif"
    with tifffile.TiffWriter(scan) as writer:
        for dtype in ("float32", "uint8", "uint8"):
            writer.write(draw_surface(rng, 70, 80, 3).astype(dtype), photometric="rgb")
    code, rows = inspect(tiny_bundle, scan, tmp_path / "out", "--page", "all")
    assert code == 4 and [row["status"] for row in rows] == ["error", "ok", "ok"]
    assert "scan.tif[1]: expected whole numbers from 0, got floating point numbers" in rows[0]["error"]


def test_inspect_refuses_a_file_that_is_named_like_a_page(
    tiny_bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "scan.tif[2]").write_bytes((scans / "single.png").read_bytes())
    for page in ("all", "2"):
        assert main(["inspect", str(tiny_bundle), str(scans), "-o", str(tmp_path / "out"), "--page", page]) == 1
        assert "scan.tif[2]: expected page 2 of scan.tif, got a file of that very name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("page", ["0", "-1", "two", "1.0"])
@pytest.mark.parametrize("command", ["inspect", "evaluate"])
def test_a_page_that_is_no_number_from_1_is_wrong_usage(command: str, page: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "a.ndp", str(tmp_path), "-o", str(tmp_path / "out"), f"--page={page}"])
    assert end.value.code == 2


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Labelled images in MVTec's layout, each a scan of two pages."""
    folder = tmp_path / "data"
    mask = np.zeros((70, 80), np.uint8)
    mask[20:30, 10:40] = 255
    for kind in ("good", "crack"):
        (folder / "test" / kind).mkdir(parents=True)
        for index in range(2):
            write_scan(folder / "test" / kind / f"{index}.tif", rng)
    (folder / "ground_truth" / "crack").mkdir(parents=True)
    for index in range(2):
        (folder / "ground_truth" / "crack" / f"{index}_mask.png").write_bytes(encode("png", mask))
    return folder


def test_evaluate_measures_the_page_that_was_chosen(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", str(tiny_bundle), str(data), "-o", str(out), "--threads", "1"]
    assert main(arguments) == 1  # every image has several pages
    assert main([*arguments, "--page", "2"]) == 0
    record = json.loads((out / "evaluation.json").read_text())
    images = record["figures"]["images"]
    assert images[0]["path"] == "test/good/0.tif[2]" and "--page 2" in record["command"]
    assert [one["has_mask"] for one in images] == 4 * [True]
    with Inspector.open(tiny_bundle, threads=1) as inspector:
        score = inspector.inspect(read_image(data / "test/good/0.tif", page=2)).score
    assert images[0]["score"] == pytest.approx(score, abs=1e-5)


@pytest.mark.nightly
def test_compare_measures_and_times_the_page_that_was_chosen(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_bundle, tmp_path / "other.ndp")
    arguments = ["compare", str(tiny_bundle), str(other), str(data), "-o", str(tmp_path / "out.json"), "--threads", "1"]
    assert main([*arguments, "--seconds", "0.1"]) == 1
    assert main([*arguments, "--seconds", "0.1", "--page", "2"]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["command"].endswith(" --page 2") and record["data"]["image_count"] == 4
    for row in record["rows"]:
        assert [one["path"][-6:] for one in row["figures"]["images"]] == 4 * ["tif[2]"]
        assert row["timing"]["latency"]["p50_ms"] > 0


class Mean:
    """Stands in for what is timed: a score and a map from an image's mean."""

    def judge(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        return image.mean(axis=2, dtype=np.float32) / 255, float(image.mean())


def test_bench_measures_accuracy_on_the_page_that_was_chosen(data: Path, tiny_bundle: Path) -> None:
    measured = [measure_accuracy(cast(Timed, Mean()), data, page) for page in (1, 2)]
    assert [one["image_count"] for one in measured] == [4, 4] and measured[0] != measured[1]
    with pytest.raises(DataError, match="Choose one: --page N"):
        measure_accuracy(cast(Timed, Mean()), data)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    given = parser.parse_args([str(tiny_bundle), "--data", str(data), "--page", "2"])
    assert bench.make_request(given).page == 2


def test_quantise_validates_on_the_page_that_was_chosen(data: Path, tiny_bundle: Path) -> None:
    contract = open_bundle(tiny_bundle).manifest.input
    first, second = (read_labelled(data, contract, page).take(1)[0].image for page in (1, 2))
    expected = np.empty_like(second)
    preprocess(read_image(data / "test/good/0.tif", page=2), contract, expected)
    assert np.allclose(second, expected, atol=1 / 255) and not np.array_equal(first, second)
    with pytest.raises(ImageFileError, match="Choose one: --page N"):
        read_labelled(data, contract)
    parser = argparse.ArgumentParser()
    quantise.add_arguments(parser)
    given = parser.parse_args([str(tiny_bundle), "--validation", str(data), "--page", "2"])
    assert quantise.make_settings(tiny_bundle, given, None).command.endswith(" --page 2")


def test_set_threshold_calibrates_on_the_page_that_was_chosen(
    tiny_bundle: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "copy.ndp"))
    good = tmp_path / "good"
    good.mkdir()
    for index in range(4):
        write_scan(good / f"{index}.tif", rng)
    arguments = ["set-threshold", str(bundle), "--calibrate", str(good), "--no-variations", "--threads", "1"]
    assert main(arguments) == 1
    values = []
    for page in ("1", "2"):
        assert main([*arguments, "--page", page]) == 0
        values.append(open_bundle(bundle).threshold("fp32").value)
    assert values[0] != values[1]

"""The folder of results: what runs of both kinds leave there, and what they keep their hands off."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.archive.shards import name_part
from ndp_rt.cli import EXIT_ERROR, EXIT_OK, main
from ndp_rt.cli.inspect_archive import find_images_of, make_absolute
from ndp_rt.images.listing import list_images
from ndp_rt.pipeline.sinks import clear_folder
from tests.archive.images import make_images

FOREIGN = (
    "part-00000-of-00001.parquet",
    "part-00000-5f1b0d6c-9a5e-4a0e-a0f1-4a8b6a0c0b11-c000.snappy.parquet",
    "maps/world/00000.npy",
    "overlays/00001/mine.png",
    "overlays/00001x/0123456789abcdef-0123456789ab-00000.png",
)
OURS = (
    name_part(3, 16, "0123456789abcdef"),
    "overlays/00003/0123456789abcdef-0123456789ab-00000.png",
    "maps/00003/0123456789abcdef-0123456789ab-00000.npy",
)


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_an_archives_own_files_are_removed(tmp_path: Path) -> None:
    make_files(tmp_path, *FOREIGN, *OURS)
    clear_folder(tmp_path)
    assert list_files(tmp_path) == {*FOREIGN, *OURS}  # no archive
    make_files(tmp_path, "archive.json", "results.csv", "left_out.txt", "overlays/00000.png")
    clear_folder(tmp_path)
    assert list_files(tmp_path) == set(FOREIGN)


def inspect(tiny_bundle: Path, images: Path, out: Path, *more: str) -> int:
    return main(["inspect", str(tiny_bundle), str(images), "-o", str(out), "--threads", "1", *more])


def test_several_workers_keep_off_results_of_one_process(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_images(tmp_path / "images", 1)
    make_files(tmp_path / "out", "results.csv", "overlays/00000.png")
    assert inspect(tiny_bundle, tmp_path / "images", tmp_path / "out", "--workers", "1") == EXIT_ERROR
    assert "expected no results of an earlier run, got results.csv" in capsys.readouterr().err
    assert inspect(tiny_bundle, tmp_path / "images", tmp_path / "out", "--workers", "1", "--overwrite") == EXIT_OK
    assert not (tmp_path / "out" / "results.csv").exists()
    assert not (tmp_path / "out" / "overlays" / "00000.png").exists()


def test_a_run_that_leaves_nothing_out_says_nothing_of_an_earlier_one(tiny_bundle: Path, tmp_path: Path) -> None:
    make_images(tmp_path / "images", 1)
    note = tmp_path / "images" / "note.txt"
    note.write_text("no image")
    for is_there in (True, False):
        assert inspect(tiny_bundle, tmp_path / "images", tmp_path / "out", "--workers", "1") == EXIT_OK
        assert (tmp_path / "out" / "left_out.txt").exists() == is_there
        note.unlink(missing_ok=True)


@pytest.mark.parametrize(("name", "page"), [(".scan.tif", "all"), (".scan.tif[2]", None)])
def test_pages_of_a_hidden_file_that_was_named_are_not_left_out(tmp_path: Path, name: str, page: str | None) -> None:
    make_images(tmp_path, 1)
    assert cv2.imwritemulti(str(tmp_path / ".scan.tif"), [np.zeros((4, 4, 3), np.uint8)] * 2)
    paths = [str(tmp_path), str(tmp_path / name)]
    with find_images_of(argparse.Namespace(paths=paths, page=page), tmp_path / "out") as found:
        assert f"{tmp_path / '.scan.tif[2]'}" in map(str, found.files)
        assert found.left_out == [] and list_images(paths).left_out == ()


def test_paths_lose_what_leads_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "day" / "one").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "day" / "one")
    (tmp_path / "other").symlink_to(tmp_path / "day")
    monkeypatch.chdir(tmp_path / "day")
    for given, wanted in (
        ("one/a.png", "day/one/a.png"),
        ("../day/one/../a.png[2]", "day/a.png[2]"),
        ("../link/../a..png", "day/a..png"),  # its folder's own parent
        ("../other/a.png", "other/a.png"),
        (str(tmp_path / "link" / "a.png"), "link/a.png"),
    ):
        assert make_absolute(Path(given)) == tmp_path / wanted

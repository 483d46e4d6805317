"""`ndp-rt watch --page`: of a file with several pages one is taken, or each, as `inspect` does; a restart goes on."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt.cli import main
from ndp_rt.folders.hot_folder import HotFolder
from ndp_rt.folders.rotation import RotatingTable
from tests.cli.watching import fill_disk, put, read_all, run_watch


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    (tmp_path / "hot").mkdir()
    return tmp_path / "hot"


def put_pages(path: Path, count: int, seed: int = 0) -> Path:
    """Rename a TIFF of several pages into a folder."""
    pages = list(np.random.default_rng(seed).integers(0, 256, (count, 40, 50, 3), dtype=np.uint8))
    hidden = path.with_name(f".{path.name}")
    assert cv2.imwritemulti(str(hidden), pages, [cv2.IMWRITE_TIFF_COMPRESSION, 8])
    return hidden.rename(path)


def list_rows(hot: Path) -> list[tuple[str, str]]:
    return [(Path(row["path"]).name, row["status"]) for row in read_all(hot.parent / "out")]


def name_pages(count: int) -> list[tuple[str, str]]:
    return [(f"scan.tif[{number + 1}]", "ok") for number in range(count)]


def test_pages_have_the_rows_of_inspect(tiny_bundle: Path, hot: Path) -> None:
    put_pages(hot / "scan.tif", 3)
    out = hot.parent / "inspected"
    assert run_watch(tiny_bundle, hot, "--page", "all", "--overlays") == 0
    main(
        ["inspect", str(tiny_bundle), str(hot), "-o", str(out), "--page", "all", "--format", "jsonl", "--threads", "1"]
    )
    inspected = [line.split('"score": ')[1].split(",")[0] for line in (out / "results.jsonl").read_text().splitlines()]
    assert list_rows(hot) == name_pages(3)
    assert [str(row["score"]) for row in read_all(hot.parent / "out")] == inspected
    pictures = sorted(path.name.rpartition("-")[2] for path in (hot.parent / "out/overlays").iterdir())
    assert pictures == ["page1.png", "page2.png", "page3.png"]


def test_one_page_is_taken_and_others_are_of_one_picture(tiny_bundle: Path, hot: Path) -> None:
    put_pages(hot / "scan.tif", 3)
    put(hot / "a.png", 1, modified_ns=10**18)
    assert run_watch(tiny_bundle, hot, "--page", "2") == 0
    assert list_rows(hot) == [("a.png[2]", "error"), ("scan.tif[2]", "ok")]
    assert run_watch(tiny_bundle, hot, "--page", "2") == 0
    assert len(list_rows(hot)) == 2


def test_without_a_page_such_a_file_is_an_error_that_names_the_argument(tiny_bundle: Path, hot: Path) -> None:
    put_pages(hot / "scan.tif", 3)
    assert run_watch(tiny_bundle, hot) == 0
    (row,) = read_all(hot.parent / "out")
    assert row["status"] == "error" and "--page" in row["error"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_restart_goes_on_after_the_last_page(
    tiny_bundle: Path, hot: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pages(hot / "scan.tif", 5)
    add, seen = RotatingTable.add, list[str]()

    def add_and_stop(table: RotatingTable, row: dict[str, Any]) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(row["path"])
        add(table, row)

    monkeypatch.setattr(RotatingTable, "add", add_and_stop)
    options = ("--page", "all", "--format", kind, "--move-to", str(hot.parent / "done"))
    assert run_watch(tiny_bundle, hot, *options) == 130
    assert list_rows(hot) == name_pages(2) and (hot / "scan.tif").exists()
    monkeypatch.setattr(RotatingTable, "add", add)
    assert run_watch(tiny_bundle, hot, *options) == 0
    assert list_rows(hot) == name_pages(5)
    assert (hot.parent / "done/scan.tif").is_file() and not (hot / "scan.tif").exists()


def test_a_full_disk_among_pages_costs_and_repeats_none(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pages(hot / "scan.tif", 4)
    fill_disk(monkeypatch, False, True, False, True)
    assert run_watch(tiny_bundle, hot, "--page", "all", "--delete", "--stop-after-idle", "0.2") == 0
    assert list_rows(hot) == name_pages(4) and not list(hot.iterdir())


def test_pages_that_all_have_rows_are_moved_after_a_restart(tiny_bundle: Path, hot: Path) -> None:
    put_pages(hot / "scan.tif", 2)
    assert run_watch(tiny_bundle, hot, "--page", "all") == 0
    assert run_watch(tiny_bundle, hot, "--page", "all", "--delete") == 0
    assert list_rows(hot) == name_pages(2) and not list(hot.iterdir())


def test_a_file_with_a_page_that_was_not_inspected_stays(tiny_bundle: Path, hot: Path) -> None:
    path = put_pages(hot / "scan.tif", 3)
    content = path.read_bytes()
    middle = len(content) // 2  # of the second page
    path.write_bytes(content[:middle] + bytes(16) + content[middle + 16 :])
    for _ in range(2):
        assert run_watch(tiny_bundle, hot, "--page", "all", "--delete") == 0
        assert list_rows(hot) == [("scan.tif[1]", "ok"), ("scan.tif[2]", "error"), ("scan.tif[3]", "ok")]
        assert path.exists()


def test_pages_of_a_file_that_was_refused_are_taken_when_they_are_wanted(tiny_bundle: Path, hot: Path) -> None:
    put_pages(hot / "scan.tif", 2)
    (hot / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run_watch(tiny_bundle, hot) == 0
    for _ in range(2):
        assert run_watch(tiny_bundle, hot, "--page", "all") == 0
    assert sorted(list_rows(hot)) == [("b.png", "error"), ("scan.tif", "error"), *name_pages(2)]
    assert run_watch(tiny_bundle, hot, "--page", "all", "--delete") == 0
    assert [path.name for path in hot.iterdir()] == ["b.png"]


def test_a_page_whose_name_another_file_has_is_an_error_and_stops_no_other(tiny_bundle: Path, hot: Path) -> None:
    put_pages(hot / "scan.tif", 2)
    put(hot / "scan.tif[2]", 1, modified_ns=10**18)
    put(hot / "z.png", 2)
    assert run_watch(tiny_bundle, hot, "--page", "all") == 0
    rows = {row["path"].rpartition("/")[2]: row for row in read_all(hot.parent / "out")}
    assert rows["scan.tif"]["status"] == "error" and "Rename it" in rows["scan.tif"]["error"]
    assert rows["scan.tif[2]"]["status"] == rows["z.png"]["status"] == "ok" and len(rows) == 3


def test_a_new_content_is_taken_from_its_first_page(tiny_bundle: Path, hot: Path) -> None:
    for seed in range(2):
        put_pages(hot / "scan.tif", 2 + seed, seed)
        assert run_watch(tiny_bundle, hot, "--page", "all") == 0
    assert list_rows(hot) == name_pages(2) + name_pages(3)


def test_a_file_that_is_replaced_between_pages_is_the_new_one(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pages(hot / "scan.tif", 2)
    note = HotFolder.note

    def replace_after(one: HotFolder, *arguments: Any, **more: Any) -> Any:
        found = note(one, *arguments, **more)
        if not (hot.parent / "replaced").exists():
            (hot.parent / "replaced").touch()
            put_pages(hot / "scan.tif", 3, 7)
        return found

    monkeypatch.setattr(HotFolder, "note", replace_after)
    assert run_watch(tiny_bundle, hot, "--page", "all", "--stop-after-idle", "3") == 0
    assert list_rows(hot) == name_pages(1) + name_pages(3)

"""A hot folder without an engine: what is done or begun while a share is away, and when watching ends."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ndp_rt.folders import hot_folder
from ndp_rt.folders import watch as watch_module
from ndp_rt.folders.hot_folder import FORGET_S, HotFolder
from ndp_rt.folders.watch import Watcher, WatchOptions
from tests.cli.watching import put


def name_two_pages(files: list[Path], page: object) -> list[Path]:
    return [Path(f"{file}[{number}]") for file in files for number in (1, 2)]


@pytest.mark.parametrize("noted_count", [1, 2], ids=["begun", "done"])
def test_what_a_share_holds_is_known_again_unless_it_was_away_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted_count: int
) -> None:
    monkeypatch.setattr(hot_folder, "choose_pages", name_two_pages)
    now = [0.0]
    hot = HotFolder(tmp_path, 0.0, lambda: now[0], page="all")
    path = put(tmp_path / "a.png")
    pages = name_two_pages([path], "all")

    def list_left() -> list[Path]:
        return [page for content in hot.poll()[0] for page in hot.list_left(content)]

    assert list_left() == pages
    (content,) = hot.poll()[0]
    for page in pages[:noted_count]:
        hot.note(content, page, is_good=True)
    now[0] = 2 * FORGET_S  # it lies there for long
    assert list_left() == pages[noted_count:]
    for away_s, left in ((FORGET_S - 1.0, pages[noted_count:]), (FORGET_S + 1.0, pages)):
        hidden = path.rename(tmp_path / ".a.png")
        now[0] += away_s
        assert list_left() == []
        hidden.rename(path)
        assert list_left() == left


def make_watcher(hot: HotFolder, tell: Callable[[str], None]) -> Watcher:
    """Return one that inspects nothing."""
    unused: Any = None
    return Watcher(unused, hot, unused, unused, WatchOptions(), tell)


def test_a_folder_that_is_away_does_not_end_the_run(tmp_path: Path) -> None:
    folder, told, stop = tmp_path / "hot", list[str](), Event()
    folder.mkdir()
    hot = HotFolder(folder, 0.0)
    folder.rmdir()

    def tell(line: str) -> None:
        told.append(line)
        stop.set()

    make_watcher(hot, tell).run(stop)
    assert len(told) == 1 and "Trying again every" in told[0]


def test_a_stop_is_heeded_while_pages_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hot").mkdir()
    paths = [put(tmp_path / f"hot/{number}.png") for number in range(3)]
    rows = [
        {"path": f"{path}[1]", "status": "ok", "size_bytes": state.st_size, "modified_ns": state.st_mtime_ns}
        for path, state in ((path, path.stat()) for path in paths)
    ]
    (tmp_path / "results-000001.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    hot = HotFolder(tmp_path / "hot", 0.0, page="all")
    hot.load_done(tmp_path)
    stop, counted = Event(), list[Path]()

    def choose_first_page(files: list[Path], page: object) -> list[Path]:
        stop.set()
        counted.extend(files)
        return [Path(f"{file}[1]") for file in files]

    monkeypatch.setattr(hot_folder, "choose_pages", choose_first_page)
    monkeypatch.setattr(watch_module, "inspect_files", lambda *_, **__: iter(()))
    make_watcher(hot, print).run(stop)
    assert len(counted) == 1

"""`ndp-rt watch`: each image once, whatever ends the run, and none before it is complete."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from ndp_rt import Inspector, read_image
from ndp_rt.cli import main
from ndp_rt.folders import watch as watch_module
from ndp_rt.folders.hot_folder import Content, HotFolder
from ndp_rt.folders.rotation import list_parts
from ndp_rt.pipeline.sinks import read_rows
from tests.cli.watching import fill_disk, put, read_all, run_watch


@pytest.fixture
def hot(tmp_path: Path, tiny_bundle: Path) -> Path:
    (tmp_path / "hot").mkdir()
    return tmp_path / "hot"


@contextlib.contextmanager
def running(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Give a process, and end it whatever the test has found."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def read_now(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a run that goes on; at midnight it ends a part."""
    rows = list[dict[str, Any]]()
    with contextlib.suppress(FileNotFoundError):
        for part in list_parts(out):
            rows += parquet.read_table(part).to_pylist() if part.suffix == ".parquet" else read_rows(part)
    return rows


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_each_image_has_one_row_in_the_order_of_their_times(tiny_bundle: Path, hot: Path, kind: str) -> None:
    for number in range(5):
        put(hot / f"{9 - number}.png", number, modified_ns=10**18 + number)
    put(hot / "sub/a.png", 7, modified_ns=10**18 + 9)
    (hot / "notes.txt").write_text("no image")
    (hot / "half.png.part").write_bytes(b"\x89PNG")
    (hot / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.utime(hot / "broken.png", ns=(10**18 + 10, 10**18 + 10))
    assert run_watch(tiny_bundle, hot, "--format", kind, "--rotate", "3") == 0
    rows = read_all(hot.parent / "out")
    names = [Path(row["path"]).relative_to(hot).as_posix() for row in rows]
    assert names == ["9.png", "8.png", "7.png", "6.png", "5.png", "sub/a.png", "broken.png"]
    assert [row["status"] for row in rows] == ["ok"] * 6 + ["error"]
    with Inspector.open(tiny_bundle, threads=1) as inspector:
        assert [row["score"] for row in rows[:6]] == [
            inspector.inspect(read_image(hot / name)).score for name in names[:6]
        ]
    parts = list_parts(hot.parent / "out")
    assert len(parts) >= 3 and {path.suffix for path in parts} == {f".{kind}"}


def test_a_restart_goes_on_and_takes_new_contents(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hot / "a.png", 1, modified_ns=10**18)
    put(hot / "b.png", 2, modified_ns=10**18 + 1)
    assert run_watch(tiny_bundle, hot) == 0
    put(hot / "c.png", 3, modified_ns=10**18 + 2)
    put(hot / "a.png", 4, modified_ns=10**18 + 3)
    monkeypatch.chdir(hot.parent)
    assert main(["watch", str(tiny_bundle), "hot", "-o", "out", "--settle", "0", "--stop-after-idle", "0"]) == 0
    assert run_watch(tiny_bundle, hot) == 0
    assert [Path(row["path"]).name for row in read_all(hot.parent / "out")] == ["a.png", "b.png", "c.png", "a.png"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_a_killed_run_has_left_is_ended_and_kept(tiny_bundle: Path, hot: Path, kind: str) -> None:
    for number in range(4):
        put(hot / f"{number}.png", number, modified_ns=10**18 + number)
    out = hot.parent / "out"
    command = [sys.executable, "-m", "ndp_rt.cli", "watch", str(tiny_bundle), str(hot), "-o", str(out), "--settle", "0"]
    with running([*command, "--format", kind]) as child:
        while child.poll() is None:
            if len(rows := read_now(out)) == 4:
                break
        child.kill()
    with list_parts(out)[-1].open("ab") as stream:
        stream.write(b'{"path": "cut in the mid')  # as after a loss of power
    put(hot / "4.png", 4, modified_ns=10**18 + 4)
    assert run_watch(tiny_bundle, hot, "--format", kind) == 0
    found = read_all(out)
    assert [row["score"] for row in found[:4]] == [row["score"] for row in rows]
    assert [Path(row["path"]).name for row in found] == [f"{number}.png" for number in range(5)]


def test_images_are_moved_or_removed_when_their_rows_are_written(tiny_bundle: Path, hot: Path) -> None:
    put(hot / "sub/a.png", 1)
    assert run_watch(tiny_bundle, hot, "--move-to", str(hot.parent / "done")) == 0
    put(hot / "sub/a.png", 2)
    assert run_watch(tiny_bundle, hot, "--move-to", str(hot.parent / "done")) == 0
    assert sorted(path.name for path in (hot.parent / "done/sub").iterdir()) == ["a-1.png", "a.png"]
    put(hot / "b.png", 3)
    assert run_watch(tiny_bundle, hot, "--delete") == 0
    assert not [path for path in hot.rglob("*") if path.is_file()]
    assert len(read_all(hot.parent / "out")) == 3


def test_an_image_whose_row_is_written_is_moved_after_a_restart(tiny_bundle: Path, hot: Path) -> None:
    put(hot / "a.png", 1)
    assert run_watch(tiny_bundle, hot) == 0  # stands for a run that was killed before it moved the image
    assert run_watch(tiny_bundle, hot, "--move-to", str(hot.parent / "done")) == 0
    assert (hot.parent / "done/a.png").is_file() and len(read_all(hot.parent / "out")) == 1


def test_an_image_that_cannot_be_moved_stops_no_other(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hot / "a.png", 1, modified_ns=10**18)
    put(hot / "b.png", 2, modified_ns=10**18 + 1)
    move = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if path.name == "a.png":
            raise PermissionError(errno.EACCES, "not yours")
        if path.parent == hot:
            raise OSError(errno.EXDEV, "another file system")
        return move(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(watch_module, "RETRY_S", 0.0)
    assert run_watch(tiny_bundle, hot, "--move-to", str(hot.parent / "done"), "--stop-after-idle", "0.2") == 0
    assert (hot / "a.png").is_file() and (hot.parent / "done/b.png").is_file() and not (hot / "b.png").exists()
    assert capsys.readouterr().out.count("not yours") == 1 and len(read_all(hot.parent / "out")) == 2


def test_an_image_that_was_not_inspected_is_not_removed(tiny_bundle: Path, hot: Path) -> None:
    put(hot / "a.png", 1)
    (hot / "b.png").write_bytes((hot / "a.png").read_bytes()[:100])
    assert run_watch(tiny_bundle, hot, "--delete") == 0
    assert [path.name for path in hot.iterdir()] == ["b.png"]
    assert sorted(row["status"] for row in read_all(hot.parent / "out")) == ["error", "ok"]


def test_a_file_that_is_replaced_before_it_is_read_is_the_new_one(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hot / "a.png", 1, modified_ns=10**18)
    poll = HotFolder.poll

    def replace_after(one: HotFolder) -> Any:
        found = poll(one)
        if found[0] and not (hot.parent / "replaced").exists():
            (hot.parent / "replaced").touch()
            put(hot / "a.png", 2, modified_ns=10**18 + 1)
        return found

    monkeypatch.setattr(HotFolder, "poll", replace_after)
    assert run_watch(tiny_bundle, hot, "--stop-after-idle", "3") == 0
    (row,) = read_all(hot.parent / "out")
    with Inspector.open(tiny_bundle, threads=1) as inspector:
        score = inspector.inspect(read_image(hot / "a.png")).score
    assert row["modified_ns"] == 10**18 + 1 and row["score"] == score


@pytest.mark.skipif(sys.platform == "win32", reason="needs names of bytes, which Windows has not")
def test_names_that_are_no_text_links_and_circles_are_done_once(tiny_bundle: Path, hot: Path) -> None:
    put(hot / "a.png", 1)
    os.rename(hot / "a.png", os.fsencode(hot) + b"/\xff.png")
    (hot / "again").symlink_to(hot)
    (hot.parent / "link").symlink_to(hot)
    assert run_watch(tiny_bundle, hot) == 0 and run_watch(tiny_bundle, hot) == 0
    options = ["-o", str(hot.parent / "out"), "--settle", "0", "--stop-after-idle", "0", "--threads", "1"]
    assert main(["watch", str(tiny_bundle), str(hot.parent / "link"), *options]) == 0
    assert len(read_all(hot.parent / "out")) == 1


@pytest.mark.nightly
def test_a_folder_that_is_away_for_a_while_is_waited_for(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hot / "a.png", 1)
    away = iter([False, True, True, False])
    poll = HotFolder.poll

    def be_away(one: HotFolder) -> Any:
        if not next(away, False):
            return poll(one)
        hot.rename(hot.parent / "away")
        try:
            return poll(one)
        finally:
            (hot.parent / "away").rename(hot)

    monkeypatch.setattr(HotFolder, "poll", be_away)
    monkeypatch.setattr(watch_module, "RETRY_S", 0.0)
    assert run_watch(tiny_bundle, hot, "--stop-after-idle", "3") == 0
    assert capsys.readouterr().out.count("Trying again") == 1 and len(read_all(hot.parent / "out")) == 1


def test_what_cannot_be_written_is_tried_again(
    tiny_bundle: Path, hot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hot / "a.png", 1)
    put(hot / "b.png", 2)
    fill_disk(monkeypatch, True, True, False)
    assert run_watch(tiny_bundle, hot, "--stop-after-idle", "0.2") == 0
    assert sorted(Path(row["path"]).name for row in read_all(hot.parent / "out")) == ["a.png", "b.png"]
    assert capsys.readouterr().out.count("no space left on device. Trying again every") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_keeps_the_rows(tiny_bundle: Path, hot: Path, number: int) -> None:
    out = hot.parent / "out"
    command = [sys.executable, "-m", "ndp_rt.cli", "watch", str(tiny_bundle), str(hot), "-o", str(out), "--settle", "0"]
    with running([*command, "--format", "parquet"]) as child:
        assert child.stdout is not None and child.stdout.readline().startswith("watching")
        put(hot / "a.png", 1)
        while not read_now(out):
            assert child.poll() is None
        child.send_signal(number)
        assert child.wait(timeout=120) == 0
    assert [path.suffix for path in list_parts(out)] == [".parquet"] and len(read_all(out)) == 1


def test_images_that_come_meanwhile_are_inspected(tiny_bundle: Path, hot: Path) -> None:
    def bring() -> None:
        for number in range(20):
            put(hot / f"{number}.png", number)

    bringing = threading.Thread(target=bring)
    bringing.start()
    assert run_watch(tiny_bundle, hot, "--stop-after-idle", "3") == 0
    bringing.join()
    assert run_watch(tiny_bundle, hot) == 0  # what came after the idle time of a slow machine
    assert len({row["path"] for row in read_all(hot.parent / "out")}) == len(read_all(hot.parent / "out")) == 20


def test_a_file_is_taken_when_it_has_not_changed_for_so_long(tmp_path: Path) -> None:
    now = [0.0]
    hot = HotFolder(tmp_path, 1.0, lambda: now[0])
    path = put(tmp_path / "a.png", 1)
    content = path.read_bytes()
    path.write_bytes(content[:10])

    def poll(at: float) -> list[str]:
        now[0] = at
        return [one.path.name for one in hot.poll()[0]]

    assert poll(0.0) == [] and poll(0.9) == []
    path.write_bytes(content)
    assert poll(1.5) == [] and poll(2.4) == [] and poll(2.5) == ["a.png"] and poll(2.6) == ["a.png"]
    state = path.stat()
    found = Content(state.st_mtime_ns, path, state.st_size)
    assert hot.list_left(found) == [path]
    hot.note(found, path, is_good=True)
    assert poll(9.0) == []
    os.utime(path, ns=(1, 1))
    assert poll(9.1) == [] and poll(10.1) == ["a.png"]


def test_entries_that_are_no_images_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    hot = HotFolder(tmp_path, 0.0)
    assert [one.reason for one in hot.poll()[1]] == ["no image"] and hot.poll()[1] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing"], "expected a folder to watch"),
        (["hot", "-o", "hot/out"], "expected a folder outside of hot"),
        (["hot", "--move-to", "hot/done"], "expected a folder outside of hot"),
        (["hot", "--rotate", "0"], "--rotate: expected a number from 1 on"),
        (["hot", "--settle", "-1"], "--settle: expected a number from 0 on"),
        (["hot", "--poll", "nan"], "--poll"),
        (["hot", "--stop-after-idle", "inf"], "--stop-after-idle"),
    ],
)
def test_what_cannot_be_watched_is_one_sentence(
    tiny_bundle: Path,
    hot: Path,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(hot.parent)
    given = words if "-o" in words else [*words, "-o", "out"]
    assert main(["watch", str(tiny_bundle), *given]) == 1
    assert sentence in capsys.readouterr().err and not (hot.parent / "out").exists()


def test_a_damaged_part_is_told(tiny_bundle: Path, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = hot.parent / "out"
    out.mkdir()
    (out / "results-000001.jsonl").write_text(json.dumps({"path": "a"}) + "\n{\n")
    assert run_watch(tiny_bundle, hot) == 1
    assert "results-000001.jsonl: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--delete"], ["--move-to"]])
def test_an_image_that_was_not_inspected_stays_after_a_restart_too(
    tiny_bundle: Path, hot: Path, more: list[str]
) -> None:
    (hot / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    more = more if more == ["--delete"] else [*more, str(hot.parent / "done")]
    for _ in range(2):
        assert run_watch(tiny_bundle, hot, *more) == 0
        assert [path.name for path in hot.iterdir()] == ["b.png"]
    assert len(read_all(hot.parent / "out")) == 1

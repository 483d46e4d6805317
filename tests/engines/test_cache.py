"""No engine is used that is not exactly what was written, however its builder ended."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.engines import cache as cache_module
from ndp_rt.engines.build import build_engine, find_engine, load_engine
from ndp_rt.engines.cache import ENGINE_FORMAT_VERSION, find_engines_dir, lock_builds
from ndp_rt.engines.spec import EngineSpec, list_built_batches
from ndp_rt.errors import EngineError
from tests.engines.test_build import make_job

ONE = EngineSpec(batches=(1,))
REBUILD = r"ndp-rt build-engine \S*tiny\.ndp --backend openvino --precision fp32 --batch 1 --plan fused --rebuild"


def find_folder(cache: Path) -> Path:
    (folder,) = (cache / "engines").glob("*-b1-*")
    return folder


def cut_blob(folder: Path) -> None:
    data = (folder / "model.blob").read_bytes()
    (folder / "model.blob").write_bytes(data[: len(data) // 2])


def change_blob(folder: Path) -> None:
    data = bytearray((folder / "model.blob").read_bytes())
    data[len(data) // 2] ^= 0x40
    (folder / "model.blob").write_bytes(data)


def edit(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / "engine.json").read_text())
        part, _, name = key.rpartition(".")
        (document[part] if part else document)[name] = value
        (folder / "engine.json").write_text(json.dumps(document))

    return change


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut_blob,
    "changed": change_blob,
    "blob missing": lambda folder: (folder / "model.blob").unlink(),
    "extra file": lambda folder: (folder / "extra").write_text("x"),
    "no description": lambda folder: (folder / "engine.json").unlink(),
    "cut description": lambda folder: (folder / "engine.json").write_text('{"format": "ndp'),
    "empty description": lambda folder: (folder / "engine.json").write_text(""),
    "other description": lambda folder: (folder / "engine.json").write_text("[1]"),
    "older format": edit("format_version", 0),
    "newer format": edit("format_version", ENGINE_FORMAT_VERSION + 1),
    "other precision": edit("key.precision", "bf16"),
    "other version": edit("key.backend_version", "2020.1"),
    "files of another kind": edit("files", {"model.blob": 3}),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_engines_are_refused_and_never_rebuilt_silently(bundle: Bundle, cache: Path, damage: str) -> None:
    folder = find_folder(cache)
    DAMAGES[damage](folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for use in (find_engine, load_engine, build_engine):
        with pytest.raises(EngineError, match=f"it is not used. Build it again with: {REBUILD}"):
            use(bundle, ONE, cache_dir=cache)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_rebuilding_mends_a_damaged_engine(bundle: Bundle, cache: Path) -> None:
    cut_blob(find_folder(cache))
    assert not build_engine(bundle, ONE, rebuild=True, cache_dir=cache).was_cached
    assert find_engine(bundle, ONE, cache_dir=cache) is not None
    assert not list((cache / "engines").glob(".tmp-*"))


def test_a_folder_from_elsewhere_under_the_right_name_is_refused(bundle: Bundle, cache: Path) -> None:
    one = find_folder(cache)
    (three,) = (cache / "engines").glob("*-b3-*")
    shutil.rmtree(one)
    shutil.copytree(three, one)
    with pytest.raises(EngineError, match="it was made for another batch"):
        load_engine(bundle, ONE, cache_dir=cache)


def test_publishing_without_an_exchanging_rename_replaces_too(
    bundle: Bundle, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "exchange", lambda first, second: False)
    record = find_engine(bundle, ONE, cache_dir=cache)
    assert record is not None
    copied = Path(shutil.copytree(find_folder(cache), tmp_path / "new"))
    cut_blob(find_folder(cache))
    cache_module.publish(copied, record.entries[0].key, find_engines_dir(cache))
    assert find_engine(bundle, ONE, cache_dir=cache) is not None and not copied.exists()


def test_a_cache_that_may_not_be_read_holds_no_engines(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engines").mkdir()

    def deny(function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any, *arguments: Any, **settings: Any) -> Any:
            if str(path).startswith(str(tmp_path)):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *arguments, **settings)

        return ask

    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    for name in ("stat", "listdir", "scandir"):  # as of a folder of mode 000, which root may read all the same
        monkeypatch.setattr(os, name, deny(getattr(os, name)))
    assert find_engine(bundle, ONE, cache_dir=tmp_path) is None
    assert list_built_batches(bundle, ONE) == []


def start_worker(bundle: Bundle, cache: Path) -> "subprocess.Popen[str]":
    job = json.dumps(make_job(bundle, cache))
    return subprocess.Popen([sys.executable, "-m", "ndp_rt.engines.worker", job], stdout=subprocess.PIPE, text=True)


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize(("line_count", "delay_ms"), [(0, 0), (0, 150), (1, 0), (1, 40), (2, 0), (2, 4), (2, 12)])
def test_a_killed_builder_leaves_no_engine_that_would_be_used(
    bundle: Bundle, tmp_path: Path, line_count: int, delay_ms: int
) -> None:
    with start_worker(bundle, tmp_path) as child:
        assert child.stdout is not None
        for _ in range(line_count):
            assert "progress" in child.stdout.readline()
        time.sleep(delay_ms / 1e3)
        child.send_signal(signal.SIGKILL)
    engines_dir = tmp_path / "engines"
    if find_engine(bundle, ONE, cache_dir=tmp_path) is None and engines_dir.is_dir():
        assert not [path for path in engines_dir.iterdir() if not path.name.startswith(".")]
    # what it left is neither used nor in the way, and goes with the next build
    build_engine(bundle, ONE, rebuild=True, cache_dir=tmp_path)
    assert not list(engines_dir.glob(".tmp-*"))
    assert len([path for path in engines_dir.iterdir() if path.is_dir()]) == 1


def test_leftovers_of_another_bundle_are_left_alone(bundle: Bundle, cache: Path) -> None:
    other = cache / "engines" / ".tmp-000000000000-openvino-fp32-abc"
    own = cache / "engines" / f".tmp-{bundle.fingerprint[:12]}-openvino-fp32-abc"
    for folder in (other, own):
        folder.mkdir()
    build_engine(bundle, ONE, rebuild=True, cache_dir=cache)
    assert other.exists() and not own.exists()


def test_two_builders_at_once_do_the_work_once(bundle: Bundle, tmp_path: Path) -> None:
    lines: list[str] = []
    threads = [
        threading.Thread(
            target=build_engine, args=(bundle, ONE), kwargs={"cache_dir": tmp_path, "progress": lines.append}
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert find_engine(bundle, ONE, cache_dir=tmp_path) is not None
    assert sum("compiling" in line for line in lines) == 1


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ndp_rt.engines.cache import lock_builds\n"
        "with lock_builds(Path(sys.argv[1]), 'x', lambda: None): print('held', flush=True); time.sleep(60)"
    )
    waits: list[str] = []
    arguments = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"

        def see_the_holder_go() -> None:
            waits.append("waiting")
            holder.kill()

        with lock_builds(tmp_path, "x", see_the_holder_go):
            assert waits == ["waiting"]


def test_interrupting_a_build_ends_its_child(bundle: Bundle, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, cache_dir=tmp_path, progress=interrupt)
    assert find_engine(bundle, ONE, cache_dir=tmp_path) is None
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child is left, running or not

"""No engine is used that another user could have written, and no builder goes on without end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.engines import build
from ndp_rt.engines import cache as cache_module
from ndp_rt.engines.build import build_engine, find_engine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError, InputError, StorageError

ONE = EngineSpec(batches=(1,))
pytestmark = pytest.mark.skipif(os.name == "nt", reason="owners and modes as Unix has them")
OTHER_USER = 4711
needs_root = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root, who can give files away")


def find_folder(cache_dir: Path) -> Path:
    (folder,) = (cache_dir / "engines").glob("*-b1-*")
    return folder


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cache for all": (lambda root: root.chmod(0o777), "nobody else may write to, got mode 0777"),
    "engines for a group": (lambda root: (root / "engines").chmod(0o770), "nobody else may write to, got mode 0770"),
    "entry for all": (lambda root: find_folder(root).chmod(0o757), "nobody else may write to, got mode 0757"),
    "file for all": (lambda root: (find_folder(root) / "model.blob").chmod(0o666), "write to, got mode 0666"),
    "linked file": (lambda root: replace_by_link(find_folder(root) / "engine.json"), "expected no link"),
}
GIFTS: dict[str, Callable[[Path], Path]] = {
    "cache": lambda root: root,
    "engines": lambda root: root / "engines",
    "entry": find_folder,
    "file": lambda root: find_folder(root) / "model.blob",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_others_can_write_is_not_used(bundle: Bundle, cache: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    change(cache)
    for use in (find_engine, build_engine):
        with pytest.raises(EngineError, match=message):
            use(bundle, ONE, cache_dir=cache)


@needs_root
@pytest.mark.parametrize("gift", GIFTS)
def test_what_belongs_to_others_is_not_used(bundle: Bundle, cache: Path, gift: str) -> None:
    os.chown(GIFTS[gift](cache), OTHER_USER, -1)
    with pytest.raises(EngineError, match=rf"got one that belongs to user {OTHER_USER}\. Set NDP_RT_CACHE"):
        find_engine(bundle, ONE, cache_dir=cache)


def test_a_cache_in_a_folder_like_tmp_is_used(bundle: Bundle, cache: Path) -> None:
    cache.chmod(0o1777)
    assert find_engine(bundle, ONE, cache_dir=cache) is not None


@pytest.mark.parametrize("place", ["in a child", "in this process"])
def test_a_new_cache_is_private(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    if place != "in a child":
        monkeypatch.setattr(build, "find_python", lambda: None)
    before = os.umask(0o002)
    try:
        build_engine(bundle, ONE, cache_dir=tmp_path / "new")
    finally:
        os.umask(before)
    found = [path for path in (tmp_path / "new").rglob("*") if not path.name.startswith(".lock-")] + [tmp_path / "new"]
    assert len(found) > 4 and not [path for path in found if path.stat().st_mode & 0o077]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock-x").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="it is a link, which is never followed"), cache_lock(tmp_path):
        pass
    assert not (tmp_path / "victim").exists()


def cache_lock(folder: Path) -> AbstractContextManager[None]:
    return cache_module.lock_builds(folder, "x", lambda: None)


def test_a_wait_for_a_lock_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDP_RT_BUILD_LIMIT_S", "0.4")
    code = (
        "import sys; from pathlib import Path; from ndp_rt.engines.cache import lock_builds\n"
        "with lock_builds(Path(sys.argv[1]), 'x', lambda: None): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"got one that process {holder.pid} of .* still holds"):
            cache_lock(tmp_path).__enter__()
        holder.communicate("")


def test_a_builder_that_takes_for_ever_is_ended(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDP_RT_BUILD_LIMIT_S", "0.5")
    monkeypatch.setattr(build, "child_command", lambda module: [sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(EngineError, match=r"expected it to end within 0 s, got one that did not|within 1 s"):
        build_engine(bundle, ONE, cache_dir=tmp_path)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_limits_that_are_none_are_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("NDP_RT_BUILD_LIMIT_S", text)
    with pytest.raises(InputError, match=f"NDP_RT_BUILD_LIMIT_S: expected a number above 0, got '{text}'"):
        build_engine(bundle, ONE, cache_dir=tmp_path)


def test_a_builder_takes_no_more_memory_than_it_may(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os; from ndp_rt.engines.process_limits import limit_process; import numpy as np\n"
        "limit_process(os.getppid(), 500_000_000)\n"
        "try: np.ones(200_000_000)\n"
        "except MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done
    monkeypatch.setenv("NDP_RT_BUILD_MEMORY_MB", "1")
    with pytest.raises(EngineError, match="memory|builder ended"):
        build_engine(bundle, ONE, cache_dir=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="a system that tells children of their parent's end")
def test_a_builder_ends_with_its_parent(bundle: Bundle, tmp_path: Path) -> None:
    waiting = tmp_path / "waits.py"
    waiting.write_text(
        "import json, os, sys, time\n"
        "from ndp_rt.engines.process_limits import limit_process\n"
        "limit_process(json.loads(sys.argv[1])['parent'], None)\n"
        "print(json.dumps({'progress': str(os.getpid())}), flush=True); time.sleep(600)\n"
    )
    code = (
        "import sys; from ndp_rt.bundle import open_bundle; from ndp_rt.engines import build\n"
        "build.child_command = lambda module: [sys.executable, sys.argv[2]]\n"
        "build.build_engine(open_bundle(sys.argv[1]), progress=lambda line: print(line, flush=True))"
    )
    command = [sys.executable, "-c", code, str(bundle.path), str(waiting)]
    environment = {**os.environ, "NDP_RT_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        builder = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while is_running(builder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(builder)


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_engine_description_nested_without_end_is_damaged(bundle: Bundle, cache: Path) -> None:
    (find_folder(cache) / "engine.json").write_text("[" * 100_000)
    with pytest.raises(EngineError, match=r"engine\.json cannot be read"):
        find_engine(bundle, ONE, cache_dir=cache)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_mutated_engines_with_fitting_hashes_are_engine_errors_or_load(
    bundle: Bundle, tmp_path: Path, backend: str
) -> None:
    """Who may write to the cache can do anything; damage that nobody meant still ends in one sentence."""
    from ndp_rt.engines.build import close_engines, load_engine
    from ndp_rt.files import hash_file

    spec = EngineSpec(backend=backend, batches=(1,))
    build_engine(bundle, spec, cache_dir=tmp_path)
    folder = find_folder(tmp_path)
    name = max(
        (path for path in folder.iterdir() if path.name != "engine.json"), key=lambda one: one.stat().st_size
    ).name
    content, document = (folder / name).read_bytes(), json.loads((folder / "engine.json").read_text())
    for cut in (b"", content[:100], content[: len(content) // 2], b"\xff" * 1000):
        (folder / name).write_bytes(cut)
        document["files"][name] = {"sha256": hash_file(folder / name), "bytes": len(cut)}
        (folder / "engine.json").write_text(json.dumps(document))
        try:
            close_engines(load_engine(bundle, spec, cache_dir=tmp_path))
        except EngineError as error:
            assert "Build it again with" in str(error)

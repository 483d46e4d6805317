"""Files that are written in one step."""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ndp_rt.errors import StorageError
from ndp_rt.files import ABANDONED_AFTER_S, LOCK_FILE, hold_lock, locking, make_temporary_folder, write_atomically


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "x.png"
    write_atomically(path, b"first")

    def fail(self: Path, content: bytes) -> None:
        with self.open("wb") as stream:
            stream.write(content[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first" and [one.name for one in path.parent.iterdir()] == ["x.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is a device or a pipe"):
        write_atomically(tmp_path / "pipe", b"content")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners as Unix has them")
def test_left_overs_of_killed_runs_go_after_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = ("ndp-rt-temporary-asset-old", "ndp-rt-temporary-asset-new", "ndp-rt-results", "other")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        if not name.endswith("new"):
            long_ago = time.time() - ABANDONED_AFTER_S - 60
            os.utime(tmp_path / name, (long_ago, long_ago))
    (tmp_path / "ndp-rt-temporary-link").symlink_to(tmp_path / "other")
    with make_temporary_folder("asset") as folder:
        assert Path(folder).parent == tmp_path and Path(folder).stat().st_mode & 0o077 == 0
        assert not (tmp_path / names[0]).exists()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["ndp-rt-results", "ndp-rt-temporary-asset-new", "ndp-rt-temporary-link", "other"]
    assert (tmp_path / "other" / "file").exists()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Do what a block does as the user 65534."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


LOCKS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "a folder of results": locking,
    "an engine or a bundle": lambda folder: hold_lock(folder / LOCK_FILE, wait_s=1),
}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to act as another user")
@pytest.mark.parametrize("take", LOCKS.values(), ids=LOCKS.keys())
def test_a_lock_file_of_another_user_is_named_with_its_owner(
    take: Callable[[Path], contextlib.AbstractContextManager[None]],
) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        shared = Path(name)
        shared.chmod(0o1777)
        with take(shared):  # what it needs is imported before the user changes
            pass
        (shared / LOCK_FILE).touch(mode=0o644)
        with as_nobody():
            if not os.access(shared, os.W_OK, effective_ids=True):
                pytest.skip("needs a temporary folder that other users get to")
            with pytest.raises(StorageError) as caught, take(shared):
                pass
    who = "it belongs to the user root. Have that user remove it, or work as that user"
    assert str(caught.value) == f"{shared / LOCK_FILE}: this lock cannot be taken ({who})."

"""Writes files in one step, explains why a file cannot be written, holds lock files, and hashes files."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ndp_rt.errors import StorageError

LOCK_FILE = ".ndp-rt.lock"
LOCK_POLL_S = 0.02
TEMPORARY_PREFIX = "ndp-rt-temporary-"
ABANDONED_AFTER_S = 3 * 86400.0  # nothing of ours computes for days without writing to its folder
REMEDY = "Free some space, or choose a folder that you may write to. What was written before is kept."


@contextlib.contextmanager
def storing(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn an OSError of writing to `path` into a StorageError that ends with `remedy`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}). {remedy}") from error


@contextlib.contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Make a folder and keep other runs of ours from writing to it meanwhile, by a hidden lock file.

    Raises:
        StorageError: another run writes to it, or it cannot be made.
    """
    from filelock import FileLock, Timeout  # takes 50 ms

    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StorageError(
            f"{folder}: expected no other run to write to it, got one that does. Choose another folder, or wait "
            "until it has ended."
        ) from error
    except OSError as error:
        raise StorageError(f"{path}: this lock cannot be taken ({_explain_lock(path, error)}).") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()
        lock.release()


def make_temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Return a new temporary folder, which goes with the block; those that killed runs left days ago go now.

    Args:
        purpose: a word of its name.

    Raises:
        OSError: no space, or no permission.
    """
    if hasattr(os, "geteuid"):
        oldest_s = time.time() - ABANDONED_AFTER_S
        for path in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
            with contextlib.suppress(OSError):
                found = path.lstat()
                is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
                if is_ours and found.st_mtime < oldest_s:
                    shutil.rmtree(path, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{TEMPORARY_PREFIX}{purpose}-")


def write_atomically(path: Path, content: bytes, remedy: str = REMEDY) -> None:
    """Write a file, and its folder where that is missing; a failure leaves the file as it was.

    Raises:
        StorageError: it cannot be written, or a device or a pipe has its name, which a file would replace.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise StorageError(f"{path}: is a device or a pipe, which a file would replace. Choose another place.")
    with storing(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file beside `path` to write to; it takes the place of `path` at the end, unless an error comes.

    It has a name that nobody can foresee, and the owner and mode of the file that it replaces.
    """
    temporary = path.with_name(f".ndp-rt-{secrets.token_hex(8)}.tmp")
    # Not by `tempfile`: its files are private, and what the umask allows can only be asked for by changing it.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # follows no link
    try:
        keep_access(path, temporary)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def keep_access(former: Path, new: Path) -> None:
    """Give a new file or folder the owner and mode of the former one, where there is one."""
    try:
        found = former.stat()
    except OSError:
        return
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):  # only root gives files away; a group may be one of the user's
            os.chown(new, -1, found.st_gid)
            os.chown(new, found.st_uid, -1)
    new.chmod(stat.S_IMODE(found.st_mode))


@contextlib.contextmanager
def hold_lock(path: Path, *, wait_s: float, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which stays; the lock itself goes with the process, however that ends.

    Args:
        path: in a folder that is there. A link is not followed.
        wait_s: how long to wait for another holder.
        on_wait: called once, if there is one.

    Raises:
        StorageError: it is held for longer, belongs to somebody else, or cannot be made.
    """
    from filelock import FileLock, Timeout  # takes 50 ms, and only those who change something need it

    lock = FileLock(path, poll_interval=LOCK_POLL_S)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if on_wait is not None:
                on_wait()
            lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise StorageError(
            f"{path}: expected this lock to become free within {wait_s:.0f} s, got one that {_name_holder(path)} still "
            "holds. Wait for that process, or end it."
        ) from error
    except OSError as error:
        raise StorageError(f"{path}: this lock cannot be taken ({_explain_lock(path, error)}).") from error
    try:
        yield
    finally:
        lock.release()


def _explain_lock(path: Path, error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.EMLINK) or path.is_symlink():
        return "it is a link, which is never followed: somebody else may have put it there. Remove it"
    if isinstance(error, PermissionError) and path.exists():
        return f"it belongs to {name_owner(path)}. Have that user remove it, or work as that user"
    return f"{error.strerror or error}. You need a folder that you may write to, with some free space"


def name_owner(path: Path) -> str:
    """Return the name of the user whom a file belongs to."""
    try:
        return f"the user {path.owner()}"
    except (KeyError, OSError, NotImplementedError):
        return f"user {path.lstat().st_uid}" if os.path.lexists(path) else "another user"


def _name_holder(path: Path) -> str:
    """Return who holds a lock, where the system tells."""
    with contextlib.suppress(OSError, ValueError):
        wanted = f":{path.stat().st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[5].endswith(wanted) and int(fields[4]) > 0:
                return f"process {fields[4]} of {name_owner(Path('/proc', fields[4]))}"
    return "another process"


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

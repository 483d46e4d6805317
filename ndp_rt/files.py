"""Writes files in one step, explains why a file cannot be written, and hashes files."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ndp_rt.errors import StorageError

LOCK_FILE = ".ndp-rt.lock"
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
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StorageError(
                f"{folder}: expected no other run to write to it, got one that does. Choose another folder, or wait "
                "until it has ended."
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            (folder / LOCK_FILE).unlink()
        lock.release()


def write_atomically(path: Path, content: bytes, remedy: str = REMEDY) -> None:
    """Write a file, and its folder where that is missing; a failure leaves the file as it was.

    Raises:
        StorageError: it cannot be written, or a device or a pipe has its name, which a file would replace.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise StorageError(f"{path}: is a device or a pipe, which a file would replace. Choose another place.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storing(path, remedy):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

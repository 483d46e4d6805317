"""Tells whether a bundle was replaced while it was read: its files are opened by name, one after another."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ndp_rt.errors import BundleError

Value = TypeVar("Value")

ATTEMPT_COUNT = 20


@contextlib.contextmanager
def watch_folder(folder: Path) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether `folder` still is the folder that it was.

    The folder is held open meanwhile, so that no other one can get its number.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and renames none that is in use
        yield lambda: True
        return
    try:
        yield lambda: _leads_to(folder, handle)
    finally:
        os.close(handle)


def _leads_to(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(handle))
    except OSError:
        return False


def read_settled(folder: Path, read: Callable[[], Value], drop: Callable[[Value], None] = lambda value: None) -> Value:
    """Return what `read` makes of a bundle, made again where the bundle was replaced meanwhile.

    Args:
        folder: the bundle's.
        read: may raise anything where files of two bundles meet.
        drop: frees what came of files of two bundles.

    Raises:
        BundleError: the bundle was replaced every time.
    """
    for _ in range(ATTEMPT_COUNT):
        with watch_folder(folder) as is_same:
            try:
                value = read()
            except Exception:
                if is_same():
                    raise
                continue
            if is_same():
                return value
            drop(value)
    raise BundleError(f"{folder}: was replaced {ATTEMPT_COUNT} times while it was read. Try again when it rests.")

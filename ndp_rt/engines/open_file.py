"""A file that is held open to be read again, also after somebody else has deleted it."""

import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

LEAST_DESCRIPTOR = 3


class OpenFile:
    """A file held open until `close`, or until nobody holds this object any more."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises OSError."""
        self._path = path
        self._descriptor = _open_above_streams(path)
        self.close: Callable[[], object] = weakref.finalize(self, os.close, self._descriptor)  # once, however called

    def read(self) -> bytes:
        """Return the whole content; raises OSError."""
        if sys.platform == "win32":  # it has no pread, and deletes no file that is open
            return self._path.read_bytes()
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)


def _open_above_streams(path: Path) -> int:
    """Open a file as descriptor 3 or above: where a host has closed its streams, a lower one would become a stream."""
    low: list[int] = []
    try:
        while (descriptor := os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))) < LEAST_DESCRIPTOR:
            low.append(descriptor)
        return descriptor
    finally:
        for one in low:
            os.close(one)

"""The log of a build, kept beside the engine."""

import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ndp_rt.errors import StorageError


class BuildLog:
    """Writes every line that TensorRT logs into a file: seconds since the start, severity, text. Use it in `with`."""

    def __init__(self, path: Path) -> None:
        """Take the file's path; a file that is there is overwritten."""
        self._path = path
        self._start_s = time.monotonic()
        self._stream: TextIO | None = None
        self._problem: OSError | None = None

    def __enter__(self) -> "BuildLog":
        self._stream = self._path.open("w", encoding="utf-8", errors="backslashreplace")
        return self

    def take_line(self, severity: str, message: str) -> None:
        """Write a line; a full disk is raised at the end, since TensorRT calls this from C++, which takes no error."""
        if self._stream is None or self._problem is not None:
            return
        try:
            self._stream.write(f"{time.monotonic() - self._start_s:9.3f} {severity:14} {message}\n")
        except OSError as error:
            self._problem = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                stream.close()
        except OSError as problem:
            self._problem = self._problem or problem
        if self._problem is not None and kind is None:
            raise StorageError(
                f"{self._path}: the build's log cannot be written ({self._problem.strerror}). Free some space there."
            ) from self._problem

"""TensorRT's log. It keeps the first logger that it is given for the whole process, so there is one, and it stays."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.errors import StorageError

if TYPE_CHECKING:
    import tensorrt as trt

Listener = Callable[[str, str], None]  # severity, message
KEPT_ERRORS = 64


@lru_cache(maxsize=8)
def _make_logger(lib: Any) -> Any:
    class Logger(lib.ILogger):  # type: ignore[misc]
        """Hands every line to those who listen, and remembers the latest errors."""

        def __init__(self) -> None:
            lib.ILogger.__init__(self)
            self.listeners: list[Listener] = []
            self.errors: deque[str] = deque(maxlen=KEPT_ERRORS)
            self.error_count = 0

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            level = severity.name
            if level in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(" ".join(msg.split()))
                self.error_count += 1
            for listener in tuple(self.listeners):
                # An exception would end the process, since TensorRT calls this from C++ that expects none.
                with contextlib.suppress(Exception):
                    listener(level, msg)

    return Logger()


def get_log(lib: Any) -> Any:
    """Return the process's logger for a library: `errors`, the latest; `error_count`; and `listeners` to add to."""
    return _make_logger(lib)


@contextlib.contextmanager
def listen(lib: Any, listener: Listener) -> Iterator[None]:
    """Hand TensorRT's lines to `listener` meanwhile; those of other threads too."""
    log = get_log(lib)
    log.listeners.append(listener)
    try:
        yield
    finally:
        log.listeners.remove(listener)


@contextlib.contextmanager
def keep_log(
    lib: Any, path: Path, is_kept: Callable[[str, str], bool] = lambda severity, message: True
) -> Iterator[None]:
    """Write TensorRT's lines to a file meanwhile: seconds since the start, severity, text.

    Args:
        lib: the library's module.
        path: the file.
        is_kept: tells of a line's severity and text whether it is written.

    Raises:
        StorageError: a line could not be written. Raised at the end: TensorRT logs from C++, which takes no error.
    """
    start_s, problems = time.monotonic(), list[OSError]()
    with path.open("w", encoding="utf-8", errors="backslashreplace", buffering=1) as stream:

        def take_line(severity: str, message: str) -> None:
            if not is_kept(severity, message):
                return
            try:
                stream.write(f"{time.monotonic() - start_s:9.3f} {severity:14} {message}\n")
            except OSError as error:
                problems.append(error)

        with listen(lib, take_line):
            yield
    if problems:
        raise StorageError(
            f"{path}: the build's log cannot be written ({problems[0].strerror}). Free some space there."
        ) from problems[0]


def describe_errors(lib: Any, count_before: int) -> str:
    """Return what TensorRT has logged as errors since `error_count` was `count_before`: the first and the last.

    The first often says what is wrong, and the last what came of it.
    """
    log = get_log(lib)
    count = min(log.error_count - count_before, len(log.errors))
    if count < 1:
        return "its log holds no error"
    first, last = log.errors[-count], log.errors[-1]
    return first if first == last else f"{first} [then] {last}"

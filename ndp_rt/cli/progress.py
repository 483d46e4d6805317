"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any

LINE_EVERY_S = 10.0


class ProgressLine:
    """Counts finished items; use as a context manager."""

    def __init__(self, label: str, total_count: int) -> None:
        self._label = label
        self._total_count = total_count
        self._done_count = 0
        self._last_line_s = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "ProgressLine":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._label, total=self._total_count)
            self._bar.start()
        return self

    def advance(self) -> None:
        """Count one more item."""
        self._done_count += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            print(f"ndp-rt: {self._label}: {self._done_count} of {self._total_count}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

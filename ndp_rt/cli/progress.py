"""Progress on stderr: a line that counts on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

LINE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.1
START_OF_LINE = "\r\x1b[K"  # and nothing on it


class ProgressLine:
    """Counts finished items; use as a context manager."""

    def __init__(self, label: str, total_count: int) -> None:
        self._label = label
        self._total_count = total_count
        self._done_count = 0
        self._start_s = self._last_line_s = time.monotonic()
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> "ProgressLine":
        return self

    def advance(self) -> None:
        """Count one more item."""
        self._done_count += 1
        now_s = time.monotonic()
        if now_s - self._last_line_s < (REDRAW_EVERY_S if self._is_terminal else LINE_EVERY_S):
            return
        self._last_line_s = now_s
        text = f"{self._label}: {self._done_count} of {self._total_count}"
        if self._is_terminal:
            rest_s = (now_s - self._start_s) / self._done_count * (self._total_count - self._done_count)
            print(f"{START_OF_LINE}{text}, {rest_s:.0f} s left", end="", file=sys.stderr, flush=True)
        else:
            print(f"ndp-rt: {text}", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal:
            print(START_OF_LINE, end="", file=sys.stderr, flush=True)

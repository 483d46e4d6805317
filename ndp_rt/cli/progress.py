"""Shows progress on stderr: a line that counts on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_EVERY_S = 10.0
REDRAW_EVERY_S = 0.1
START_OF_LINE = "\r\x1b[K"  # and nothing on it


@contextlib.contextmanager
def show_progress(label: str, total_count: int) -> Iterator[Callable[..., None]]:
    """Yield a function that counts one more finished item, or as many as it is given."""
    done_count = 0
    start_s = last_line_s = time.monotonic()
    is_terminal = sys.stderr is not None and sys.stderr.isatty()

    def advance(count: int = 1) -> None:
        nonlocal done_count, last_line_s
        done_count += count
        now_s = time.monotonic()
        if now_s - last_line_s < (REDRAW_EVERY_S if is_terminal else LINE_EVERY_S):
            return
        last_line_s = now_s
        text = f"{label}: {done_count} of {total_count}"
        if is_terminal:
            rest_s = (now_s - start_s) / done_count * (total_count - done_count)
            print(f"{START_OF_LINE}{text}, {rest_s:.0f} s left", end="", file=sys.stderr, flush=True)
        else:
            print(f"ndp-rt: {text}", file=sys.stderr, flush=True)

    try:
        yield advance
    finally:
        if is_terminal:
            print(START_OF_LINE, end="", file=sys.stderr, flush=True)

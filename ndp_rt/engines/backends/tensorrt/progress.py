"""A build's progress as a line now and then, whatever tells of it."""

import threading
import time
from collections.abc import Callable

LINE_EVERY_S = 2.0


class BuildProgress:
    """Turns phases, or lines of a log, into at most one line every two seconds. Any thread may call it."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Take where the lines go; `clock` gives seconds."""
        self._tell = tell
        self._clock = clock
        self._start_s = self._last_s = clock()
        self._steps: dict[str, int] = {}
        self._is_stopped = False
        self._lock = threading.Lock()

    def start(self, phase: str, step_count: int) -> None:
        """Note that a phase of so many steps begins."""
        self._steps[phase] = step_count
        self._say(phase)

    def advance(self, phase: str, step: int) -> bool:
        """Note a step that is done; return False once nobody listens any more, so that the build can end."""
        self._say(f"{phase}: {step + 1} of {self._steps.get(phase, 0)}")
        return not self._is_stopped

    def finish(self, phase: str) -> None:
        """Note that a phase is done."""
        self._steps.pop(phase, None)

    def take_line(self, severity: str, message: str) -> None:
        """Note a line of the library's log: what there is before phases were reported."""
        if severity == "INFO":
            self._say(" ".join(message.split()))

    def _say(self, words: str) -> None:
        with self._lock:
            now = self._clock()
            if now - self._last_s < LINE_EVERY_S:
                return
            self._last_s = now
        try:
            self._tell(f"building, {now - self._start_s:.0f} s: {words}")
        except (OSError, ValueError):  # the reader is gone, or the pipe closed; C++ calls this and takes no exception
            self._is_stopped = True

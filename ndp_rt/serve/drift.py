"""How far what comes has moved from what a bundle was calibrated with."""

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

LAST_COUNT = 256  # the last values that are compared
FIRST_COUNT = 32  # a service's own first values, which stand for those of calibration images where there are none
CALIBRATION, FIRST = "calibration", "first"


class Drift:
    """The last values of one kind, and those that they are compared with. Any thread may call any method."""

    def __init__(self, calibration: Sequence[float], *, least_spread: float = 0.0) -> None:
        """Begin.

        Args:
            calibration: values of the bundle's calibration images; fewer than two: the first FIRST_COUNT that come
                stand for them.
            least_spread: where the values have less.
        """
        self._lock = threading.Lock()
        self._last: deque[float] = deque(maxlen=LAST_COUNT)
        self._base = list(calibration)
        self._least_spread = least_spread
        self.source = CALIBRATION if len(calibration) > 1 else FIRST
        if self.source == FIRST:
            self._base = []

    def add(self, value: float) -> None:
        """Take the next value."""
        with self._lock:
            self._last.append(value)
            if self.source == FIRST and len(self._base) < FIRST_COUNT:
                self._base.append(value)

    def list_values(self) -> tuple[list[float], list[float]]:
        """Return the values that are compared with, and the last ones; of the former none until all have come."""
        with self._lock:
            is_whole = self.source == CALIBRATION or len(self._base) == FIRST_COUNT
            return (list(self._base) if is_whole else []), list(self._last)

    def measure(self) -> float:
        """Return the last values' median less that of the others, in the others' spreads; NaN where there are none."""
        base, last = self.list_values()
        centre, spread = describe_values(base)
        spread = max(spread, self._least_spread)
        return (float(np.median(last)) - centre) / spread if last and len(base) > 1 and spread > 0 else float("nan")


def describe_values(values: Sequence[float]) -> tuple[float, float]:
    """Return the median of values and their spread, 1.4826 times the median distance from it; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0, 0.0
    centre = float(np.median(values))
    return centre, 1.4826 * float(np.median(np.abs(np.asarray(values) - centre)))

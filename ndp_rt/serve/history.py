"""What a model's last images were found to be: scores and times of many, pictures of a few, in bounded memory."""

import itertools
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ndp_rt.result import Result
from ndp_rt.serve.drift import LAST_COUNT, Drift
from ndp_rt.serve.pictures import Drawn, finite

ROW_COUNT = 2000
PICTURE_COUNT = 48  # of rejected images, and as many of the others
RATE_S = 60.0  # that the rate is counted over


class Row(NamedTuple):
    """One image: its number from 1, when it was done, and what was found."""

    number: int
    time_s: float
    score: float
    threshold: float
    is_defect: bool
    latency_ms: float  # in the queue and the inspection


class History:
    """The last images of a model, which outlives loading it again. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin with none."""
        self.id = secrets.token_hex(8)  # tells a page that the numbers have begun again
        self._lock = threading.Lock()
        self._rows: deque[Row] = deque(maxlen=ROW_COUNT)
        self._pictures: dict[bool, deque[Drawn]] = {kind: deque(maxlen=PICTURE_COUNT) for kind in (False, True)}
        self._count = self._defect_count = 0
        self._start_s = time.time()
        self.scores, self.brightness = Drift(()), Drift(())
        self.threshold = 0.0

    def begin(self, threshold: float, scores: Drift, brightness: Drift) -> None:
        """Take what a model that was loaded decides by and is compared with."""
        self.threshold, self.scores, self.brightness = threshold, scores, brightness

    def add(self, results: Sequence[Result], waited_s: float, time_s: float) -> int:
        """Take the results of a request that was done at a time, and return the number of the first."""
        with self._lock:
            first = self._count + 1
            for result in results:
                self._count += 1
                self._defect_count += result.is_defect
                latency_ms = waited_s * 1e3 + result.timings_ms["total"]
                self._rows.append(
                    Row(self._count, time_s, result.score, result.threshold, result.is_defect, latency_ms)
                )
        return first

    def add_picture(self, drawn: Drawn) -> None:
        """Take the picture of an image."""
        with self._lock:
            self._pictures[drawn.facts["is_defect"]].append(drawn)

    def find_picture(self, number: int) -> Drawn | None:
        """Return the picture of an image; None: it was never drawn, or is forgotten."""
        return next((one for one in self.list_pictures() if one.number == number), None)

    def list_pictures(self) -> list[Drawn]:
        """Return all pictures, the oldest image first."""
        with self._lock:
            return sorted(itertools.chain(*self._pictures.values()), key=lambda one: one.number)

    def describe(self, after: int, pictures_after: int) -> dict[str, Any]:
        """Return rows and pictures of the images behind these numbers, and figures of all, as values of JSON."""
        with self._lock:
            rows = list(self._rows)
            count, defect_count = self._count, self._defect_count
        last = rows[-LAST_COUNT:]
        latencies = [row.latency_ms for row in last]
        base, scores = self.scores.list_values()
        return {
            "id": self.id,
            "image_count": count,
            "defect_count": defect_count,
            "last_count": len(last),
            "last_defect_count": sum(row.is_defect for row in last),
            "rate": measure_rate(rows, self._start_s, time.time()),
            "latency_ms": dict(
                zip(("p50", "p99"), np.percentile(latencies, (50, 99)).tolist() if last else (None, None), strict=True)
            ),
            "threshold": finite(self.threshold),
            "score": describe_drift(self.scores) | {"base": shorten(base), "last": shorten(scores)},
            "brightness": describe_drift(self.brightness),
            "rows": [describe_row(row) for row in rows if row.number > after],
            "pictures": [one.describe() for one in self.list_pictures() if one.number > pictures_after],
        }


def describe_row(row: Row) -> list[Any]:
    """Return number, milliseconds since 1970, score, threshold, decision and latency."""
    return [
        row.number,
        round(row.time_s * 1e3),
        finite(row.score),
        finite(row.threshold),
        int(row.is_defect),
        round(row.latency_ms, 2),
    ]


def describe_drift(drift: Drift) -> dict[str, Any]:
    """Return a drift, what it is compared with, and the two medians."""
    base, last = drift.list_values()
    medians = [float(np.median(values)) if values else math.nan for values in (base, last)]
    return {
        "drift": finite(drift.measure()),
        "source": drift.source,
        "base_count": len(base),
        "base_median": finite(medians[0]),
        "last_median": finite(medians[1]),
    }


def measure_rate(rows: Sequence[Row], start_s: float, now_s: float) -> float:
    """Return images a second over the last RATE_S; over less where the service or the rows began later."""
    since_s = max(now_s - RATE_S, start_s)
    if len(rows) == ROW_COUNT and rows[0].time_s > since_s:
        since_s = rows[0].time_s
    count = sum(row.time_s >= since_s for row in rows)
    return count / max(now_s - since_s, 1.0)


def shorten(values: Sequence[float]) -> list[float]:
    """Return values with as many digits as a page shows, without those that are no numbers."""
    return [float(f"{value:.6g}") for value in values if math.isfinite(value)]

"""Processes whose times are given."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from ndp_rt.bench.rivals.base import Check
from ndp_rt.bench.timed.spec import OURS, Opened, TimedSpec, Turn, TurnTimes, WarmUp
from ndp_rt.errors import EngineError

CHECK = Check(map_max_abs_difference=1e-6, allowed=1e-4, against="golden maps", image_count=2)


class FakeProcess:
    """Takes `query_ms(name, turn number)` for a query; fails in turn `fails_at`, is interrupted in `stops_at`."""

    def __init__(
        self,
        spec: TimedSpec,
        query_ms: Callable[[int], float],
        log: list[str],
        fails_at: int | None = None,
        stops_at: int | None = None,
    ) -> None:
        self.spec, self.name = spec, spec.name
        self.opened = Opened(backend="fake", plan=None, checks=dict.fromkeys(spec.batches, CHECK))
        self.query_ms = query_ms
        self.log = log
        self.fails_at = fails_at
        self.stops_at = stops_at
        self.turns: list[tuple[Turn, int]] = []
        self.is_closed = False
        self.process_id = os.getpid()

    def warm_up(self, turn: Turn, limit_s: float) -> WarmUp:
        size = 1 if turn.method == "decide_all" else turn.query_size
        return WarmUp(query_count=10, is_stable=True, query_ms=self.query_ms(0) * size)

    def run_turn(self, turn: Turn, again_count: int) -> TurnTimes:
        number = len(self.turns)
        if number == self.fails_at:
            raise EngineError("its process ended by signal 11")
        if number == self.stops_at:
            raise KeyboardInterrupt
        self.turns.append((turn, again_count))
        self.log.append(self.name)
        query_ms = self.query_ms(number)
        if turn.arrivals_s is not None:
            return serve_in_order(turn.arrivals_s, query_ms)
        count = max(1, math.ceil(turn.seconds * 1e3 / query_ms - 1e-9))
        return TurnTimes(
            latencies_ms=[query_ms] * count,
            image_count=count * turn.query_size,
            elapsed_s=count * query_ms / 1e3,
            parts_ms={"engine": query_ms * 0.9, "total": query_ms},
        )

    def ask(self, name: str, *values: Any) -> Any:
        return {"read_peak_memory": 2**20, "time_after_pause": self.query_ms(0) * 2}[name]

    def kill(self) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True


def serve_in_order(arrivals_s: Sequence[float], query_ms: float) -> TurnTimes:
    """Serve one image after another, each for query_ms: a queue without a clock."""
    free_s, latencies = 0.0, []
    for arrival in arrivals_s:
        free_s = max(free_s, arrival) + query_ms / 1e3
        latencies.append((free_s - arrival) * 1e3)
    return TurnTimes(latencies_ms=latencies, image_count=len(latencies), elapsed_s=free_s, parts_ms={})


def make_process(
    name: str,
    query_ms: float | Callable[[int], float],
    log: list[str] | None = None,
    *,
    kind: str = OURS,
    fails_at: int | None = None,
    stops_at: int | None = None,
) -> Any:
    """Return a fake process in which one is open."""
    times = query_ms if callable(query_ms) else lambda number: float(query_ms)
    spec = TimedSpec(
        name=name, word=name.split()[0], kind=kind, bundle="x.ndp", precision="fp32", batches=(1, 2, 8), threads=1
    )
    return FakeProcess(spec, times, [] if log is None else log, fails_at, stops_at)

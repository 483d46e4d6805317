"""Turns, in which a machine that slows down slows all, and the rows that are made of them (docs/bench-record.md)."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndp_rt.bench.latency import bound_percentile, compare_pairs, summarise
from ndp_rt.bench.scenarios import Scenario
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import TimedSpec, Turn, TurnTimes, WarmUp
from ndp_rt.errors import MissingExtraError, NdpRtError
from ndp_rt.evaluate.record import Record

MIN_TURN_COUNT = 10  # of one whose queries are fast, at least
MAX_TURN_S = 5.0  # an interrupted run loses a turn, and a machine that changes should change between turns
MIN_ROUND_COUNT = 3  # of one whose queries are slow
AGAIN_COUNT = 2  # untimed queries before each turn: caches and clocks were others' meanwhile
SLOW_MS = 1000.0  # a query that takes longer needs none
WARM_UP_SHARE = 1.0  # of the measured time, at most

Tell = Callable[[str], None]


@dataclass(kw_only=True, eq=False)
class Series:
    """What was measured of one process with one batch size in one session; `turns` by round."""

    warm_up: WarmUp
    turns: dict[int, TurnTimes] = field(default_factory=dict)
    is_side_by_side: bool = False  # the turns ran at once, in processes of their own

    @property
    def latencies_ms(self) -> list[float]:
        return [value for turn in self.turns.values() for value in turn.latencies_ms]

    @property
    def round_p50_ms(self) -> dict[int, float]:
        return {index: float(np.median(turn.latencies_ms)) for index, turn in self.turns.items()}

    @property
    def images_per_s(self) -> float:
        seconds = [turn.elapsed_s for turn in self.turns.values()]
        count = sum(turn.image_count for turn in self.turns.values())
        return count / (float(np.mean(seconds)) if self.is_side_by_side else sum(seconds))

    @property
    def parts_ms(self) -> dict[str, float]:
        """An image's milliseconds in each part, the mean over all images."""
        counts = [turn.image_count for turn in self.turns.values()]
        names = next(iter(self.turns.values())).parts_ms.keys() if self.turns else ()
        return {
            name: float(np.average([turn.parts_ms[name] for turn in self.turns.values()], weights=counts))
            for name in names
        }


def open_process(spec: TimedSpec, image_paths: Sequence[str], tell: Tell) -> TimedProcess:
    """Start a process and open there what is timed.

    Raises:
        NdpRtError: it cannot run here, fails, or answers wrongly; nothing stays behind.
    """
    tell(f"opening {spec.name}")
    process = TimedProcess()
    try:
        process.open(spec, image_paths)
        return process
    except BaseException:
        process.kill()
        process.close()
        raise


def take_turns(
    processes: Sequence[TimedProcess],
    scenario: Scenario,
    batch: int,
    seconds: float,
    tell: Tell,
    found: dict[str, Series],
    refused: dict[str, str],
) -> None:
    """Time every process for `seconds` at least, in rounds; the order rotates from round to round.

    Args:
        found: gets each one's series by its name, round by round: an interrupted run keeps the rounds it had.
        refused: gets the reason of each that fails; its series goes.
    """
    left = list(processes)
    rounds: dict[str, int] = {}
    turns: dict[str, Turn] = {}
    for one in processes:
        first_size = scenario.find_query_size(batch, math.inf, 0.0)
        first = Turn(batch=batch, query_size=first_size, method=scenario.method)
        tell(f"warming up {one.name}, batch {batch}")
        try:
            warm = one.warm_up(first, max(1.0, seconds * WARM_UP_SHARE))
        except NdpRtError as error:
            drop(one, left, found, refused, error)
            continue
        found[one.name] = Series(warm_up=warm)
        rounds[one.name] = count_rounds(seconds, warm.query_ms)
        turn_s = seconds / rounds[one.name]
        image_ms = warm.query_ms / (1 if scenario.method == "decide_all" else first_size)
        size = scenario.find_query_size(batch, image_ms, turn_s)
        turns[one.name] = Turn(batch=batch, query_size=size, seconds=turn_s, method=scenario.method)
    total = count_all_rounds(seconds)
    for index in range(total):
        tell(f"batch {batch}: round {index + 1} of {total}")
        for one in left[index % len(left) :] + left[: index % len(left)] if left else []:
            if not is_in_round(index, rounds[one.name], total):
                continue
            query_ms = found[one.name].warm_up.query_ms
            again = AGAIN_COUNT if len(left) > 1 and query_ms < SLOW_MS else 0
            try:
                times = one.run_turn(turns[one.name], again)
            except NdpRtError as error:
                drop(one, left, found, refused, error)
                continue
            found[one.name].turns[index] = times


def count_all_rounds(seconds: float) -> int:
    """Return how many rounds a run has in which each is timed for `seconds`."""
    return max(MIN_TURN_COUNT, math.ceil(seconds / MAX_TURN_S))


def count_rounds(seconds: float, query_ms: float) -> int:
    """Return in how many rounds one takes part: fewer, where a round's share of the time is under a query."""
    return min(count_all_rounds(seconds), max(MIN_ROUND_COUNT, int(seconds * 1e3 / max(query_ms, 1e-3))))


def is_in_round(index: int, round_count: int, total: int) -> bool:
    """Tell whether one that takes part in `round_count` of `total` rounds, spread evenly, is in this one."""
    return index == 0 or index * round_count // total != (index - 1) * round_count // total


def drop(
    one: TimedProcess, left: list[TimedProcess], found: dict[str, Series], refused: dict[str, str], error: NdpRtError
) -> None:
    """Take one that failed out of the run, with everything that was measured of it."""
    refused[one.name] = str(error)
    left.remove(one)
    found.pop(one.name, None)
    one.kill()
    one.close()


KEPT_COUNT = 20_000  # latencies of a row in a record


def make_row(
    one: TimedProcess, batch: int, scenario: Scenario, series: Series, base: tuple[str, Series] | None
) -> Record:
    """Return a row with everything that comes from the times, and the check.

    Args:
        one: opened and checked.
        batch: of the engine.
        scenario: in which it was timed.
        series: its turns, at least one.
        base: name and series of the row that this one is compared with, from the same rounds; None: itself.
    """
    spec, opened, latencies = one.spec, one.opened, series.latencies_ms
    check = opened.checks[batch]
    row: Record = {
        "name": spec.name,
        "contender": spec.word,
        "kind": spec.kind,
        "backend": opened.backend,
        "precision": spec.precision,
        "plan": opened.plan,
        "device": spec.device,
        "threads": spec.threads,
        "batch": batch,
        "scenario": scenario.name,
        "latency": summarise(latencies),
        "latencies_ms": [round(value, 4) for value in thin(latencies)],
        "thinned": len(latencies) > KEPT_COUNT,
        "round_p50_ms": [round(value, 4) for value in series.round_p50_ms.values()],
        "images_per_s": series.images_per_s,
        "warm_up": dataclasses.asdict(series.warm_up),
        "parts_ms": series.parts_ms,
        "check": dataclasses.asdict(check),
        "facts": dict(opened.facts),
        "notes": list(opened.notes),
        "warnings": [],
    }
    if scenario.share is not None:
        with contextlib.suppress(MissingExtraError):  # `make gpu-check` does without SciPy
            row["percentile"] = bound_percentile(latencies, scenario.share).to_json()
    if base is not None:
        row["ratio"] = compare_series(series, *base)
    return row


def compare_series(series: Series, base_name: str, base: Series) -> Mapping[str, Any]:
    """Return how many times as long a query takes as the base's, over the rounds that both took part in."""
    own, other = series.round_p50_ms, base.round_p50_ms
    shared = sorted(own.keys() & other.keys())
    ratio = compare_pairs([own[index] for index in shared], [other[index] for index in shared])
    return {"to": base_name, **dataclasses.asdict(ratio), "round_count": len(shared)}


def thin(latencies: Sequence[float]) -> Sequence[float]:
    """Return at most KEPT_COUNT of the latencies, evenly chosen, in order."""
    if len(latencies) <= KEPT_COUNT:
        return latencies
    return [latencies[index] for index in np.linspace(0, len(latencies) - 1, KEPT_COUNT).astype(int)]

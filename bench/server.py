"""MLPerf's server scenario: the highest rate of random arrivals at which a latency bound holds."""

import math
from dataclasses import dataclass

from ndp_rt.bench.latency import count_allowed
from ndp_rt.bench.measure import Series, Tell
from ndp_rt.bench.scenarios import draw_arrivals
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import Turn, TurnTimes

SHARE = 0.99  # of the latencies that are within the bound
BOUND_OVER_QUERY = 3.0  # the bound where none is given, in times of a query that waits for nobody
SEARCH_STEP_COUNT = 7
SEARCH_SHARE = 0.5  # of the measured time, for each step
FIRST_LOAD = 0.4  # of what one query after another takes; from there rates grow until one fails
GROWTH = 1.7
BACK_OFF, LAST_TRY_COUNT = 0.85, 8  # a rate that held in a step may fail over the whole time; then a lower one is tried


@dataclass(frozen=True, kw_only=True)
class Served:
    """A rate of arrivals and how it went."""

    target_qps: float
    latency_bound_ms: float
    achieved_qps: float
    is_met: bool
    over_bound_count: int
    allowed_count: int  # of those over the bound, for SHARE to hold with 99 % confidence; below 1: too few queries

    def to_json(self) -> dict[str, object]:
        return dict(vars(self))


def serve(
    one: TimedProcess,
    batch: int,
    seconds: float,
    *,
    target_qps: float | None,
    bound_ms: float | None,
    tell: Tell,
) -> tuple[Series, Served]:
    """Find the highest rate that keeps the bound, unless one is given, and time it for `seconds`.

    Args:
        one: opened with the batch sizes 1 and `batch`.
        batch: how many waiting images may share a batch.
        seconds: of the last run; the search takes three to four times as long before it.
        target_qps: images a second; None: search.
        bound_ms: of a latency, from arrival to decision; None: BOUND_OVER_QUERY times its query by itself.
        tell: gets lines of progress.
    """
    warm = one.warm_up(Turn(batch=1, query_size=1), max(1.0, seconds))
    bound = bound_ms or BOUND_OVER_QUERY * warm.query_ms
    series = Series(warm_up=warm)
    rate = target_qps or _search(one, batch, seconds * SEARCH_SHARE, bound, 1e3 / warm.query_ms, tell)
    for _ in range(1 if target_qps else LAST_TRY_COUNT):
        tell(f"{one.name}: {rate:.3g} images/s")
        times = one.run_turn(make_turn(rate, batch, seconds), 0)
        series.turns[0] = times
        served = judge(times, rate, bound)
        if served.is_met:
            break
        rate *= BACK_OFF
    return series, served


def _search(one: TimedProcess, batch: int, step_s: float, bound_ms: float, single_qps: float, tell: Tell) -> float:
    low, high = 0.0, math.inf
    rate = FIRST_LOAD * single_qps
    for step in range(SEARCH_STEP_COUNT):
        tell(f"{one.name}: searching the rate, step {step + 1} of {SEARCH_STEP_COUNT}: {rate:.3g} images/s")
        times = one.run_turn(make_turn(rate, batch, step_s), 0)
        low, high = (rate, high) if judge(times, rate, bound_ms).is_met else (low, rate)
        rate = GROWTH * low if math.isinf(high) else (low + high) / 2
    return low or rate


def make_turn(rate_per_s: float, batch: int, seconds: float) -> Turn:
    """Return a turn of random arrivals; the same ones for the same rate."""
    return Turn(batch=batch, query_size=1, arrivals_s=draw_arrivals(rate_per_s, seconds, seed=0))


def judge(times: TurnTimes, target_qps: float, bound_ms: float) -> Served:
    """Tell whether SHARE of the latencies are within the bound: with confidence, or in the sample where it is small."""
    count = len(times.latencies_ms)
    over = sum(latency > bound_ms for latency in times.latencies_ms)
    allowed = count_allowed(count, SHARE)
    return Served(
        target_qps=target_qps,
        latency_bound_ms=bound_ms,
        achieved_qps=times.image_count / times.elapsed_s,
        is_met=over <= allowed if allowed >= 1 else over <= (1 - SHARE) * count,
        over_bound_count=over,
        allowed_count=allowed,
    )

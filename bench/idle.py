"""`ndp-rt bench --idle S`: the first image after a pause, as a triggered camera gives it."""

from ndp_rt.bench.latency import Latency, compare_pairs
from ndp_rt.bench.measure import Tell
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import Turn
from ndp_rt.evaluate.record import Record

MIN_PAUSE_COUNT = 10
STEADY_S = 0.5  # of inspections one after another, between two pauses


def measure_idle(one: TimedProcess, pause_s: float, seconds: float, tell: Tell) -> Record:
    """Time one image after each of many pauses, and images one after another between the pauses.

    Args:
        one: opened with batch size 1.
        pause_s: of each pause, above 0.
        seconds: of the run at least, and MIN_PAUSE_COUNT pauses.
        tell: gets lines of progress.
    """
    turn = Turn(batch=1, query_size=1, seconds=STEADY_S)
    one.warm_up(turn, max(1.0, seconds))
    count = max(MIN_PAUSE_COUNT, round(seconds / (pause_s + STEADY_S)))
    first, steady, steady_p50 = [], [], []
    for index in range(count):
        tell(f"{one.name}: pause {index + 1} of {count}")
        times = one.run_turn(turn, 0)
        steady += times.latencies_ms
        steady_p50.append(Latency.of(times.latencies_ms).p50_ms)
        first.append(float(one.ask("time_after_pause", 1, pause_s)))
    ratio = compare_pairs(first, steady_p50)
    return {
        "pause_s": pause_s,
        "first": Latency.of(first).to_json(),
        "steady": Latency.of(steady).to_json(),
        "ratio": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
    }

"""Many threads in one C process, on one inspector and with an inspector each: throughput, memory, right answers."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from ndp_rt.bench.capi.calls import check_golden
from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.host import HostProcess, HostProgram, learn
from ndp_rt.bench.capi.pictures import load_pictures, make_network_pictures
from ndp_rt.bench.measure import Tell
from ndp_rt.bundle.open import Bundle
from ndp_rt.evaluate.record import Record

THREAD_COUNTS = (1, 2, 4, 8, 16)
MOST_THREADS = max(THREAD_COUNTS)
ENGINE_THREADS = {"default": 0, "1": 1}  # of each engine: the backend's choice, and one
KINDS = ("one inspector", "an inspector each")
ROUND_COUNT = 3
FIRST_CALLS, BLOCK_COUNT = 1000, 20  # after these calls, and then after each block, memory is looked at
SHORTER = 10  # the calls with one engine thread are so many times fewer
MIN_SHARE, MAX_GROWTH = 0.9, 0.01


def measure_threads(
    host: HostProgram, bundle: Bundle, seconds: float, call_count: int, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Measure calls per second for each number of threads, and make `call_count` calls from twice the most at once.

    Every score and map is compared with the first answer of its image, bit for bit.

    Args:
        seconds: for each number of threads, on one inspector and on its own, in ROUND_COUNT rounds.
        call_count: from MOST_THREADS threads on one inspector and as many with one each, all at the same time.

    Raises:
        EngineError: a call failed, or an answer was wrong.
    """
    found |= {"seconds": seconds, "kinds": list(KINDS), "engine_threads": {}}
    figures = []
    for name, threads in ENGINE_THREADS.items():
        one: Record = {"calls_per_s": {kind: {} for kind in KINDS}}
        found["engine_threads"][name] = one
        with host.start() as process:
            tell(f"threads: opening {MOST_THREADS + 1} inspectors, engine threads: {name}")
            for _ in range(MOST_THREADS + 1):
                process.ask("open", bundle.path, threads)
            loaded = load_pictures(process, make_network_pictures(bundle), folder)
            answers = [learn(process, 0, picture) for picture in loaded]
            one["check"] = check_golden(bundle, answers[0])
            sweep(process, seconds, f"engine threads: {name}", tell, one)
            count = call_count if threads == 0 else max(MOST_THREADS, call_count // SHORTER)
            one["together"] = crowd(process, count, tell)
        figures += list_figures(name, one)
    return figures


def sweep(process: HostProcess, seconds: float, what: str, tell: Tell, found: Record) -> None:
    """Fill in calls per second by kind and number of threads: the median of rounds whose order rotates."""
    steps = [(kind, count) for kind in KINDS for count in THREAD_COUNTS]
    rates: dict[tuple[str, int], list[float]] = {step: [] for step in steps}
    for index in range(ROUND_COUNT):
        shift = index * len(steps) // ROUND_COUNT
        for kind, count in steps[shift:] + steps[:shift]:
            tell(f"threads: {what}, round {index + 1} of {ROUND_COUNT}: {count} on {kind}")
            split = (count, 0) if kind == KINDS[0] else (0, count)
            times = process.ask("crowd", *split, 0, seconds / ROUND_COUNT)
            rates[kind, count].append(times["calls"] / times["elapsed_s"])
    for (kind, count), values in rates.items():
        found["calls_per_s"][kind][str(count)] = {"median": sorted(values)[len(values) // 2], "rounds": values}


def crowd(process: HostProcess, count: int, tell: Tell) -> Record:
    """Make so many calls from MOST_THREADS threads on one inspector and as many with one each, block by block."""
    edges = np.linspace(min(FIRST_CALLS, count // 2), count, BLOCK_COUNT + 1).astype(int).tolist()
    sums, samples = {"calls": 0, "elapsed_s": 0.0, "cpu_s": 0.0}, list[list[int]]()
    for before, after in pairwise([0, *edges]):
        tell(f"threads: {sums['calls']} of {count} calls from {2 * MOST_THREADS} threads")
        times = process.ask("crowd", MOST_THREADS, MOST_THREADS, after - before, 0)
        sums = {name: value + times[name] for name, value in sums.items()}
        samples.append([int(sums["calls"]), process.read_rss_bytes()])
    return {
        **sums,
        "calls_per_s": sums["calls"] / sums["elapsed_s"],
        "wrong_answers": 0,  # the first one ends the measurement
        "rss_growth": samples[-1][1] / samples[0][1] - 1,
        "rss_bytes_by_calls": samples,
    }


def list_figures(name: str, found: Record) -> list[Figure]:
    """Return what is asked of many threads, and what was reached."""
    rates = {kind: {int(n): one["median"] for n, one in found["calls_per_s"][kind].items()} for kind in KINDS}
    best = {kind: max(values.values()) for kind, values in rates.items()}
    together = found["together"]
    where = f"engine threads: {name}"
    shares = {
        f"{MOST_THREADS} threads on {kind}, of the best number's rate": rates[kind][MOST_THREADS] / best[kind]
        for kind in KINDS
    }
    shares[f"{2 * MOST_THREADS} threads on both, of the best rate"] = together["calls_per_s"] / max(best.values())
    return [
        Figure(name=f"wrong answers in {together['calls']} calls ({where})", unit="", limit=0, reached=0),
        Figure(
            name=f"growth of memory after the first calls ({where})",
            unit="%",
            limit=MAX_GROWTH,
            reached=together["rss_growth"],
        ),
        *(
            Figure(name=f"{what} ({where})", unit="%", limit=MIN_SHARE, reached=share, is_least=True)
            for what, share in shares.items()
        ),
    ]

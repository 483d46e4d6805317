"""Open, inspect, submit, close, again and again: memory, descriptors and threads stay as they are."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ndp_rt.bench.capi.calls import SLOT_COUNT
from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.host import Answer, HostProcess, HostProgram, check_same, teach
from ndp_rt.bench.capi.pictures import load_pictures, make_network_pictures
from ndp_rt.bench.measure import Tell
from ndp_rt.bundle.open import Bundle
from ndp_rt.errors import EngineError
from ndp_rt.evaluate.record import Record

SAMPLE_S = 10.0
MIN_SAMPLE_COUNT = 20
SHORT_OPEN_COUNT = 3  # opened and closed with one inspection, after each full use
WINDOW_SHARE = 0.1  # of the time
MAX_SERIES_COUNT = 200
MAX_GROWTH = 0.01  # as of the calls from many threads; what is asked of a soak is a record
COLUMNS = ("elapsed_s", "rss_bytes", "descriptors", "threads", "cycles")
Sample = tuple[float, ...]


def measure_soak(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Run the soak for so long, fill in `found`, also where an error or Ctrl-C ends it earlier, and return the figures.

    A cycle opens the bundle, inspects each picture alone, submits one again and again, and closes; then it opens,
    inspects one and closes SHORT_OPEN_COUNT times. Each answer is compared with the first of its picture, bit for bit.

    Args:
        folder: for the pictures' files.

    Raises:
        EngineError: a call failed, an answer differed, or the host died.
    """
    samples: list[Sample] = []
    block_s = min(SAMPLE_S, seconds / MIN_SAMPLE_COUNT)
    found |= {"seconds": seconds, "failures": 0}
    with host.start() as process:
        pictures = load_pictures(process, make_network_pictures(bundle), folder)
        expected: dict[int, Answer] = {}
        start, cycles = time.monotonic(), 0
        try:
            while not samples or time.monotonic() - start < seconds:
                end = time.monotonic() + block_s
                while not cycles or time.monotonic() < end:
                    run_cycle(process, bundle.path, pictures, expected)
                    cycles += 1
                memory = process.read_memory()
                elapsed = round(time.monotonic() - start, 3)
                samples.append((elapsed, *(memory[name] for name in COLUMNS[1:-1]), cycles))
                tell(f"soak: {elapsed:.0f} of {seconds:.0f} s, {cycles} cycles")
        except EngineError:
            found["failures"] = 1
            raise
        finally:
            if samples:
                found |= {"cycles": cycles, "opens": cycles * (1 + SHORT_OPEN_COUNT), **summarise(samples)}
    return list_figures(found)


def run_cycle(process: HostProcess, bundle: Path, pictures: Sequence[int], expected: dict[int, Answer]) -> None:
    """Open, inspect every picture, submit and close, then the short opens; `expected` gets each first answer."""
    for used in (pictures, *[pictures[:1]] * SHORT_OPEN_COUNT):
        process.ask("open", bundle, 0)
        for picture in used:
            answer = process.ask("answer", 0, picture)
            if picture not in expected:
                expected[picture] = answer
                teach(process, picture, answer)
            check_same(answer, expected[picture], f"soak, picture {picture}")
        if used is pictures:
            process.ask("submit", 0, pictures[0], SLOT_COUNT, SLOT_COUNT)
        process.ask("close")


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what samples show: growth from the second tenth of the time to the last, and the series, thinned evenly.

    What a C library gives back to the system, and when, differs from moment to moment: resident memory goes up and
    down by the size of an engine's buffers. So the lowest values of both tenths are compared, and the highest; a leak
    raises both.
    """
    end_s = samples[-1][0]
    early = [one for one in samples if WINDOW_SHARE * end_s <= one[0] <= 2 * WINDOW_SHARE * end_s] or [samples[0]]
    late = [one for one in samples if one[0] >= (1 - WINDOW_SHARE) * end_s]
    return {
        # The larger growth of the least and the greatest values.
        "rss_growth": max(pick(one[1] for one in late) / pick(one[1] for one in early) - 1 for pick in (min, max)),
        "descriptor_growth": late[-1][2] - early[0][2],
        "thread_growth": late[-1][3] - early[0][3],
        "sample_count": len(samples),
        "columns": list(COLUMNS),
        "series": thin(samples),
    }


def thin(samples: Sequence[Sample]) -> list[list[float]]:
    """Return MAX_SERIES_COUNT samples at most, evenly, the last among them."""
    step = -(-len(samples) // MAX_SERIES_COUNT)
    return [list(one) for one in samples[::-1][::step][::-1]]


def list_figures(found: Record) -> list[Figure]:
    """Return what is asked of a soak, and what was reached."""
    return [
        Figure(name="soak: failed calls and wrong answers", unit="", limit=0, reached=found["failures"]),
        Figure(name="soak: growth of resident memory", unit="%", limit=MAX_GROWTH, reached=found["rss_growth"]),
        Figure(name="soak: descriptors left open", unit="", limit=0, reached=found["descriptor_growth"]),
        Figure(name="soak: threads left running", unit="", limit=0, reached=found["thread_growth"]),
    ]

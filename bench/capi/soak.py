"""Open, inspect in every way, close, again and again: memory, descriptors and threads stay as they are."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.host import HostProgram
from ndp_rt.bench.capi.pictures import load_pictures, make_large_picture, make_picture_of_each_format
from ndp_rt.bench.measure import Tell
from ndp_rt.bundle.open import Bundle
from ndp_rt.errors import EngineError
from ndp_rt.evaluate.record import Record

SAMPLE_S = 10.0
MIN_SAMPLE_COUNT = 20
WINDOW_SHARE = 0.1  # of the time
MAX_SERIES_COUNT = 200
MAX_GROWTH = 0.01  # as of the calls from many threads; what is asked of a soak is a record
COLUMNS = ("elapsed_s", "rss_bytes", "heap_bytes", "descriptors", "threads", "cycles")
Sample = tuple[float, ...]


def measure_soak(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Run the soak for so long, fill in `found`, also where an error or Ctrl-C ends it earlier, and return the figures.

    A cycle opens the bundle, inspects pictures of every pixel format alone, in a batch, in tiles and submitted, moves
    the threshold, and closes; then it opens, inspects one and closes three times. Each answer is compared with the
    first of its kind, bit for bit.

    Args:
        folder: for the pictures' files.

    Raises:
        EngineError: a call failed, an answer differed, or the host died.
    """
    samples: list[Sample] = []
    block_s = min(SAMPLE_S, seconds / MIN_SAMPLE_COUNT)
    counts = {"cycles": 0, "opens": 0, "calls": 0}
    found |= {"seconds": seconds, "failures": 0}
    with host.start(tell) as process:
        load_pictures(process, make_picture_of_each_format(bundle), folder)
        large = load_pictures(process, [make_large_picture(bundle)], folder)[0]
        start = time.monotonic()
        try:
            while not samples or time.monotonic() - start < seconds:
                done = process.ask("soak", bundle.path, large, block_s)
                counts = {name: count + done[name] for name, count in counts.items()}
                memory = process.read_memory()
                elapsed = round(time.monotonic() - start, 3)
                samples.append((elapsed, *(memory[name] for name in COLUMNS[1:-1]), counts["cycles"]))
                tell(f"soak: {elapsed:.0f} of {seconds:.0f} s, {counts['cycles']} cycles")
        except EngineError:
            found["failures"] = 1
            raise
        finally:
            if samples:
                found |= {**counts, **summarise(samples)}
    return list_figures(found)


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
        "rss_growth": find_growth(early, late, "rss_bytes"),
        "heap_growth": find_growth(early, late, "heap_bytes"),
        "rss_sample_growth": late[-1][1] / early[0][1] - 1,
        "descriptor_growth": late[-1][3] - early[0][3],
        "thread_growth": late[-1][4] - early[0][4],
        "sample_count": len(samples),
        "columns": list(COLUMNS),
        "series": thin(samples),
    }


def find_growth(early: Sequence[Sample], late: Sequence[Sample], column: str) -> float:
    """Return the larger growth of a column's least and greatest values, as a share."""
    index = COLUMNS.index(column)
    return max(pick(one[index] for one in late) / pick(one[index] for one in early) - 1 for pick in (min, max))


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

"""How long a grabber's thread is held up by ndp_rt_inspector_submit while the engine is busy."""

from pathlib import Path

import numpy as np

from ndp_rt.bench.capi.answers import learn
from ndp_rt.bench.capi.calls import MIN_TURN_CALLS, PERCENTILES, check_golden
from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.hosts import HostProgram
from ndp_rt.bench.capi.pictures import load_pictures, make_network_pictures
from ndp_rt.bench.measure import Tell
from ndp_rt.bundle.open import Bundle
from ndp_rt.evaluate.record import Record

SLOT_COUNT = 8
MAX_SUBMIT_US = 100.0  # "within microseconds", says the header; a hundredth of a quick line's time for a frame


def measure_submit(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Keep SLOT_COUNT images in the queue, and time each submit; every result is checked.

    Raises:
        EngineError: a call failed, or a result was wrong.
    """
    with host.start(tell) as process:
        process.ask("open", bundle.path, 0)
        load_pictures(process, make_network_pictures(bundle)[:1], folder)
        found["check"] = check_golden(bundle, learn(process, 0, 0))
        few = process.ask("submit", 0, 0, SLOT_COUNT, SLOT_COUNT)
        image_s = few["elapsed_s"] / (2 * SLOT_COUNT)
        count = max(MIN_TURN_CALLS, round(seconds / image_s))
        tell(f"submit: {count} images")
        times = process.ask("submit", 0, 0, SLOT_COUNT, count)
    found |= {
        "count": count,
        "slots": SLOT_COUNT,
        "least_waiting": times["least_waiting"],
        "image_ms": times["elapsed_s"] / (count + SLOT_COUNT) * 1e3,
        "submit_us": {f"p{share}": float(np.percentile(times["submit_us"], share)) for share in PERCENTILES}
        | {"max": max(times["submit_us"])},
    }
    return [
        Figure(
            name="ndp_rt_inspector_submit while the engine is busy, p99",
            unit="us",
            limit=MAX_SUBMIT_US,
            reached=found["submit_us"]["p99"],
        )
    ]

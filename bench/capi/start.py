"""From the start of a C program to its first decision, with the engine cached."""

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from ndp_rt.bench.capi.answers import Answer, check_same
from ndp_rt.bench.capi.calls import check_golden
from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.hosts import HostProgram
from ndp_rt.bench.capi.pictures import describe, make_network_pictures
from ndp_rt.bench.latency import Latency
from ndp_rt.bench.measure import Tell
from ndp_rt.bundle.open import Bundle
from ndp_rt.config import child_environment
from ndp_rt.errors import EngineError
from ndp_rt.evaluate.record import Record

PARTS = ("process", "runtime start", "open", "read image", "first inspection")
MAX_START_S = 2.0
STARTS_PER_S = 1.0
MIN_COUNT = 3


def measure_start(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Run a fresh C program again and again until its first decision; files lie in the system's page cache.

    Raises:
        EngineError: a program failed or answered wrongly.
    """
    words = [str(word) for word in (bundle.path, *describe(make_network_pictures(bundle)[0], folder))]
    _, expected = run_once(host, words)  # builds the engine where it is not cached
    found["check"] = check_golden(bundle, expected)
    count = max(MIN_COUNT, round(seconds * STARTS_PER_S))
    runs = []
    for index in range(count):
        tell(f"start: {index + 1} of {count}")
        times, answer = run_once(host, words)
        check_same(answer, expected, f"start {index + 1}")
        runs.append(times)
    found |= {
        "page_cache": "warm",
        "total": Latency.of([sum(times.values()) for times in runs]).to_json(),
        "parts": {name: Latency.of([times[name] for times in runs]).to_json() for name in PARTS},
    }
    return [
        Figure(
            name=f"process start to first decision, {word}",
            unit="s",
            limit=MAX_START_S,
            reached=found["total"][name] / 1e3,
        )
        for word, name in (("median", "p50_ms"), ("longest", "max_ms"))
    ]


def run_once(host: HostProgram, words: list[str]) -> tuple[dict[str, float], Answer]:
    """Run one program and return the milliseconds of each of PARTS, and the answer."""
    asked = time.monotonic()  # the clock that the program reads
    done = subprocess.run(
        [str(host.path), sys.executable, *words], capture_output=True, text=True, env=child_environment()
    )
    try:
        found = json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.strip()[-500:] or "it said nothing"
        raise EngineError(f"a C program ended with exit code {done.returncode} ({last}).") from error
    if "error" in found:
        raise EngineError(f"a C program: {found['error']}")
    moments = [asked, *found["moments_s"]]
    return {name: (b - a) * 1e3 for name, (a, b) in zip(PARTS, pairwise(moments), strict=True)}, found["answer"]

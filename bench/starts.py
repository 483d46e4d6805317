"""`ndp-rt bench --cold` and `--idle S`: first decisions, of a fresh process and after a pause."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from ndp_rt.bench.latency import compare_pairs, summarise
from ndp_rt.bench.measure import Tell
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import TimedSpec, Turn, choose_threshold
from ndp_rt.bundle.open import Bundle
from ndp_rt.config import child_environment
from ndp_rt.engines.engine import one_line
from ndp_rt.engines.golden_report import find_allowed
from ndp_rt.errors import EngineError
from ndp_rt.evaluate.record import Record
from ndp_rt.files import make_temporary_folder

HIT_COUNT, MISS_COUNT = 10, 3
# "import" is `import ndp_rt` alone; what it names is loaded on first use, which is "load names".
PARTS = ("interpreter", "import", "load names", "open", "read image", "first inspection")
MIN_PAUSE_COUNT = 10
STEADY_S = 0.5  # of inspections one after another, between two pauses
FOLLOWING_MIN, FOLLOWING_MAX, FOLLOWING_S = 5, 30, 1.0  # inspections after the first one: as many as fit
# What a user's program does first. The clock is the system's, so the parent knows when the process was asked for.
PROGRAM = """
import time, sys, json; sys.path[:] = sys.argv[1].split("\\n")
started = time.monotonic()
import ndp_rt
imported = time.monotonic()
from ndp_rt import Inspector, read_image
loaded = time.monotonic()
inspector = Inspector.open(sys.argv[2], **json.loads(sys.argv[4]))
opened = time.monotonic()
image = read_image(sys.argv[3])
ready = time.monotonic()
result = inspector.inspect(image)
done = time.monotonic()
least, most, limit = json.loads(sys.argv[5])
ends = [done]
while len(ends) <= least or (len(ends) <= most and ends[-1] < done + limit):
    inspector.inspect(image)
    ends.append(time.monotonic())
moments = [started, imported, loaded, opened, ready, done]
print(json.dumps({"moments": moments, "ends": ends, "score": result.score}))
"""


def measure_cold(spec: TimedSpec, bundle: Bundle, image_path: str, tell: Tell) -> Record:
    """Start a fresh Python process again and again, and return how long the first decision took: {"hit", "miss"}.

    The files lie in the system's page cache, as after a restart of the program, not of the machine. After its first
    image each process inspects the same one again: what the first takes longer is what opening left undone.

    Args:
        spec: one of ours; its engine is built before the hits.
        bundle: for the score that the first decision has to have.
        image_path: the first golden image's file.
        tell: gets lines of progress.

    Raises:
        EngineError: a process failed, or answered wrongly.
    """
    golden = bundle.golden()
    expected, (_, allowed) = float(golden.score[0]), find_allowed(bundle, golden, spec.precision)
    run_once(spec, bundle, image_path, expected, allowed, None)
    found: Record = {}
    for kind, count, words in (("hit", HIT_COUNT, "engine cached"), ("miss", MISS_COUNT, "engine to be built")):
        runs = []
        for index in range(count):
            tell(f"{spec.name}: cold start {index + 1} of {count}, {words}")
            with make_temporary_folder("cold") as cache:
                place = Path(cache) if kind == "miss" else None
                runs.append(run_once(spec, bundle, image_path, expected, allowed, place))
        found[kind] = summarise_starts(runs, allowed)
    return found


def run_once(
    spec: TimedSpec, bundle: Bundle, image_path: str, expected: float, allowed: float, cache: Path | None
) -> dict[str, float]:
    """Start one process and return the milliseconds of each of PARTS, of "total" and, the median, of "following".

    "score error" is how far its first decision's score is off.
    """
    options: dict[str, Any] = {
        "device": spec.device,
        "backend": spec.backend,
        "precision": spec.precision,
        "plan": spec.plan,
        "batches": [1],
        "threads": spec.threads,
        "threshold": choose_threshold(bundle, spec.precision),
    }
    limits = json.dumps([FOLLOWING_MIN, FOLLOWING_MAX, FOLLOWING_S])
    words = ["\n".join(sys.path), spec.bundle, image_path, json.dumps(options), limits]
    environment = child_environment() | ({} if cache is None else {"NDP_RT_CACHE": str(cache)})
    asked = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise EngineError(f"{spec.name}: a fresh process failed: {one_line(RuntimeError(done.stderr.strip()[-500:]))}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if not abs(answer["score"] - expected) <= allowed:
        raise EngineError(
            f"{spec.name}: a fresh process scored the first golden image {answer['score']:.6f}; {expected:.6f} is "
            f"right, and {allowed:.0e} is allowed between them."
        )
    moments = [asked, *answer["moments"]]
    parts = {name: (b - a) * 1e3 for name, (a, b) in zip(PARTS, pairwise(moments), strict=True)}
    following_ms = statistics.median(b - a for a, b in pairwise(answer["ends"])) * 1e3
    return {
        **parts,
        "total": (moments[-1] - asked) * 1e3,
        "following": following_ms,
        "score error": abs(answer["score"] - expected),
    }


def summarise_starts(runs: list[dict[str, float]], allowed: float) -> Record:
    """Return the latencies of whole starts, of each part and of later images, and how far first scores were off."""
    check = {
        "score_max_abs_difference": max(run["score error"] for run in runs),
        "allowed": allowed,
        "against": "PyTorch fp32 score of the first golden image",
        "image_count": len(runs),
    }
    following = [run["following"] for run in runs]
    ratio = compare_pairs([run["first inspection"] for run in runs], following)
    return {
        "count": len(runs),
        "check": check,
        "total": summarise([run["total"] for run in runs]),
        "parts": {name: summarise([run[name] for run in runs]) for name in PARTS},
        "following": summarise(following),
        "first_ratio": asdict(ratio),
    }


def measure_idle(one: TimedProcess, pause_s: float, seconds: float, tell: Tell) -> Record:
    """Time one image after each of many pauses, and images one after another between them, for `seconds` at least.

    As a triggered camera gives them.
    """
    turn = Turn(batch=1, query_size=1, seconds=STEADY_S)
    one.warm_up(turn, max(1.0, seconds))
    count = max(MIN_PAUSE_COUNT, round(seconds / (pause_s + STEADY_S)))
    first, steady, steady_p50 = [], [], []
    for index in range(count):
        tell(f"{one.name}: pause {index + 1} of {count}")
        times = one.run_turn(turn, 0)
        steady += times.latencies_ms
        steady_p50.append(statistics.median(times.latencies_ms))
        first.append(float(one.ask("time_after_pause", 1, pause_s)))
    ratio = compare_pairs(first, steady_p50)
    return {
        "pause_s": pause_s,
        "first": summarise(first),
        "steady": summarise(steady),
        "ratio": asdict(ratio),
    }

"""What a call from C costs: beside the same call from Python, while the engine is busy, empty, and as a first one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.capi.figures import Figure
from ndp_rt.bench.capi.host import Answer, HostProcess, HostProgram, check_same, learn, read_score, teach
from ndp_rt.bench.capi.pictures import Picture, describe, load_pictures, make_frame, make_network_pictures
from ndp_rt.bench.latency import summarise
from ndp_rt.bench.measure import Tell, count_all_rounds
from ndp_rt.bench.timed.process import ChildProcess, ServiceProcess
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.golden_report import find_allowed
from ndp_rt.errors import EngineError
from ndp_rt.evaluate.record import Record

PYTHON_SIDE = "ndp_rt.bench.capi.python_side"
AGAIN_COUNT = 2  # untimed calls at the start of a turn, because another process had the processor
MIN_TURN_CALLS = 3
SCORE_ALONE, EVERYTHING = 0, 3
MAX_OVERHEAD_US, MAX_EMPTY_US = 50.0, 1.0
ASKED_THREADS = 16
SLOT_COUNT = 8  # of the queue that submits fill
MAX_SUBMIT_US = 100.0  # "within microseconds", says the header; a hundredth of a quick line's time for a frame
START_PARTS = ("process", "runtime start", "open", "read image", "first inspection")
MAX_START_S = 2.0
STARTS_PER_S = 1.0
MIN_START_COUNT = 3


# What is asked of an image: its number, and a sum of what source/host.hpp calls WANTS_.
CASES = {
    "network's size, score": (0, SCORE_ALONE),
    "network's size, map and defects": (0, EVERYTHING),
    "1024 x 1024, score": (1, SCORE_ALONE),
    "1024 x 1024, map and defects": (1, EVERYTHING),
}
Case = tuple[int, int]


@contextmanager
def opening(host: HostProgram, bundle: Bundle, folder: Path, found: Record) -> Iterator[HostProcess]:
    """Give a host with an inspector and the first golden image, whose answer was checked and is expected."""
    with host.start() as process:
        process.ask("open", bundle.path, 0)
        load_pictures(process, make_network_pictures(bundle)[:1], folder)
        found["check"] = check_golden(bundle, learn(process, 0, 0))
        yield process


def list_percentiles(times: Any) -> dict[str, float]:
    """Return p50, p90 and p99 of times."""
    return {f"p{share}": float(np.percentile(times, share)) for share in (50, 90, 99)}


def measure_calls(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Time calls from C and from Python in turns, in processes of their own, for `seconds` in each case and process.

    Raises:
        EngineError: a call failed, or an answer from C was not Python's, bit for bit.
    """
    pictures = [make_network_pictures(bundle)[0], make_frame(bundle)]
    with host.start() as in_c, ServiceProcess(PYTHON_SIDE) as in_python:
        sides = {"c": in_c, "python": in_python}
        for process in sides.values():
            process.ask("open", bundle.path, 0)
        answers = learn_answers(in_c, in_python, pictures, folder)
        found["check"] = check_golden(bundle, answers[0])
        found["inside_the_clock"] = "a uint8 RGB image in memory to the filled buffers; less total_ms of the same call"
        found["cases"] = {}
        for name, case in CASES.items():
            found["cases"][name] = take_turns(name, case, sides, seconds, tell)
    return [
        Figure(
            name=f"C call beyond Python's: {name}, p50",
            unit="us",
            limit=MAX_OVERHEAD_US,
            reached=one["difference_us"]["p50"],
        )
        for name, one in found["cases"].items()
    ]


def learn_answers(
    in_c: ChildProcess, in_python: ChildProcess, pictures: Sequence[Picture], folder: Path
) -> list[Answer]:
    """Load pictures in both processes, and have both expect from now on what Python says."""
    answers = []
    for index in load_pictures(in_python, pictures, folder):
        load_pictures(in_c, [pictures[index]], folder)
        answers.append(learn(in_python, 0, index))
        check_same(in_c.ask("answer", 0, index), answers[-1], f"C against Python, picture {index}")
        teach(in_c, index, answers[-1])
    return answers


def check_golden(bundle: Bundle, answer: Answer) -> Record:
    """Return how far the first golden image's score is from PyTorch's.

    Raises:
        EngineError: further than the tolerance.
    """
    golden = bundle.golden()
    expected, (_, allowed) = float(golden.score[0]), find_allowed(bundle, golden, "fp32")
    difference = abs(read_score(answer) - expected)
    if not difference <= allowed:
        raise EngineError(
            f"a wrong answer: the first golden image scored {read_score(answer):.6f}; {expected:.6f} is right, and "
            f"{allowed:.0e} is allowed between them."
        )
    return {
        "score_max_abs_difference": difference,
        "allowed": allowed,
        "against": "PyTorch fp32 score of the first golden image; all other answers are this one's, bit for bit",
    }


def take_turns(what: str, case: Case, sides: dict[str, ChildProcess], seconds: float, tell: Tell) -> Record:
    """Time one case in both processes, in rounds whose order rotates."""
    first = {name: ask_calls(one, case, AGAIN_COUNT, MIN_TURN_CALLS) for name, one in sides.items()}
    call_ms = {name: float(np.median(times["wall_ms"])) for name, times in first.items()}
    round_count = count_all_rounds(seconds)
    rounds: dict[str, list[Record]] = {name: [] for name in sides}
    for index in range(round_count):
        tell(f"calls: {what}: round {index + 1} of {round_count}")
        for name in list(sides) if index % 2 == 0 else list(sides)[::-1]:
            count = max(MIN_TURN_CALLS, round(seconds * 1e3 / round_count / call_ms[name]))
            rounds[name].append(ask_calls(sides[name], case, AGAIN_COUNT, count))
    result: Record = {name: summarise_rounds(times) for name, times in rounds.items()}
    c, python = (result[name]["overhead_us"] for name in ("c", "python"))
    result["difference_us"] = {name: c[name] - python[name] for name in c}
    c_ms, python_ms = ([float(np.median(one["wall_ms"])) for one in rounds[name]] for name in ("c", "python"))
    # Whole calls differ by what both clocks hide as well, but vary by much more than what is looked for.
    result["wall_difference_us"] = float(np.median(np.subtract(c_ms, python_ms))) * 1e3
    return result


def ask_calls(process: ChildProcess, case: Case, again: int, count: int) -> dict[str, Any]:
    times: dict[str, Any] = process.ask("calls", 0, *case, again, count)
    return times


def summarise_rounds(rounds: Sequence[Record]) -> Record:
    """Return a process's times of all rounds."""
    wall_ms, total_ms = (np.concatenate([one[name] for one in rounds]) for name in ("wall_ms", "total_ms"))
    overhead_us = (wall_ms - total_ms) * 1e3
    return {
        "wall": summarise(list(wall_ms)),
        "overhead_us": list_percentiles(overhead_us),
        "round_overhead_p50_us": [
            float(np.median(np.subtract(one["wall_ms"], one["total_ms"]))) * 1e3 for one in rounds
        ],
    }


def measure_timings(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Time ndp_rt_timings from one thread and from many at once; each call has to tell the number of inspections.

    With more threads than cores the system stops each of them for milliseconds now and then; processor time leaves that
    out.

    Raises:
        EngineError: a call failed or told something else.
    """
    with opening(host, bundle, folder, found) as process:
        for threads in (1, ASKED_THREADS):
            tell(f"timings: {threads} at once")
            process.ask("timings", 0, threads, seconds / 10)
            times = process.ask("timings", 0, threads, seconds)
            found[f"threads_{threads}"] = {
                "calls": times["calls"],
                "cpu_us_per_call": times["cpu_s"] / times["calls"] * 1e6,
                "calls_per_s": times["calls"] / times["elapsed_s"],
            }
    return [
        Figure(
            name=f"processor time of ndp_rt_timings, {threads} thread{'' if threads == 1 else 's at once'}",
            unit="us",
            limit=MAX_EMPTY_US,
            reached=found[f"threads_{threads}"]["cpu_us_per_call"],
        )
        for threads in (1, ASKED_THREADS)
    ]


def measure_submit(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Keep SLOT_COUNT images in the queue, and time each submit; every result is checked.

    Raises:
        EngineError: a call failed, or a result was wrong.
    """
    with opening(host, bundle, folder, found) as process:
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
        "submit_us": list_percentiles(times["submit_us"]) | {"max": max(times["submit_us"])},
    }
    return [
        Figure(
            name="ndp_rt_inspector_submit while the engine is busy, p99",
            unit="us",
            limit=MAX_SUBMIT_US,
            reached=found["submit_us"]["p99"],
        )
    ]


def measure_start(
    host: HostProgram, bundle: Bundle, seconds: float, folder: Path, tell: Tell, found: Record
) -> list[Figure]:
    """Run a fresh C program again and again until its first decision; files lie in the system's page cache.

    Raises:
        EngineError: a program failed or answered wrongly.
    """
    picture = describe(make_network_pictures(bundle)[0], folder)
    _, expected = run_once(host, bundle, picture)  # builds the engine where it is not cached
    found["check"] = check_golden(bundle, expected)
    count = max(MIN_START_COUNT, round(seconds * STARTS_PER_S))
    runs = []
    for index in range(count):
        tell(f"start: {index + 1} of {count}")
        times, answer = run_once(host, bundle, picture)
        check_same(answer, expected, f"start {index + 1}")
        runs.append(times)
    found |= {
        "page_cache": "warm",
        "total": summarise([sum(times.values()) for times in runs]),
        "parts": {name: summarise([times[name] for times in runs]) for name in START_PARTS},
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


def run_once(host: HostProgram, bundle: Bundle, picture: tuple[object, ...]) -> tuple[dict[str, float], Answer]:
    """Start a host, have it inspect once, and return the milliseconds of each of START_PARTS, and the answer."""
    moments = [time.monotonic()]  # the clock that the host reads
    with host.start() as process:
        moments += [process.main_s, time.monotonic()]
        for request, *words in (("open", bundle.path, 0), ("picture", *picture), ("answer", 0, 0)):
            answer = process.ask(str(request), *words)
            moments.append(time.monotonic())
    return {name: (b - a) * 1e3 for name, (a, b) in zip(START_PARTS, pairwise(moments), strict=True)}, answer

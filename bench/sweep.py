"""`ndp-rt bench --sweep AXIS`: how cost grows with batch size, threads, image size or parallel streams."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import takewhile

import numpy as np

from ndp_rt.bench.latency import summarise
from ndp_rt.bench.measure import Series, Tell, open_process, take_turns
from ndp_rt.bench.rivals.base import Image, to_image
from ndp_rt.bench.scenarios import SCENARIOS
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.bench.timed.spec import TimedSpec, Turn
from ndp_rt.bundle.open import Bundle
from ndp_rt.errors import EngineError, InputError
from ndp_rt.evaluate.record import Record

AXES = ("batch", "threads", "size", "streams")
BATCHES = (1, 2, 4, 8, 16)
FACTORS = {"inspect": (1, 2, 4, 8, 16), "inspect_large": (1, 2, 4)}  # of the network's side; tiles cost most
METHODS = {"inspect": "decide", "inspect_large": "decide_large"}
LINEAR_SHARE = 0.8  # of the first point's efficiency; below it the words say that growth is no longer linear
SINGLE = SCENARIOS["single-stream"]
WORDS = {"batch": "Batch", "threads": "Threads:", "size": "Side", "streams": "Streams:"}
LINEAR = {"threads": "Throughput a thread", "size": "Throughput in pixels"}  # what stays where growth is linear


def measure_sweep(axis: str, spec: TimedSpec, bundle: Bundle, cores: int, seconds: float, tell: Tell) -> Record:
    """Return {axis, points, words}; every point was checked like a row.

    Args:
        axis: of AXES.
        spec: one of ours.
        bundle: its bundle.
        cores: usable ones.
        seconds: for each point.
        tell: gets lines of progress.

    Raises:
        InputError: an axis that there is not.
        NdpRtError: a point could not be measured.
    """
    measures: dict[str, Callable[[], list[Record]]] = {
        "batch": lambda: sweep_batches(spec, seconds, tell),
        "threads": lambda: sweep_threads(spec, cores, seconds, tell),
        "size": lambda: sweep_sizes(spec, bundle, seconds, tell),
        "streams": lambda: sweep_streams(spec, cores, seconds, tell),
    }
    if axis not in measures:
        raise InputError(f"--sweep: expected one of {', '.join(AXES)}, got '{axis}'.")
    if axis == "threads" and spec.device != "cpu":
        raise InputError(f"--sweep threads is for a CPU; the device is {spec.device}. Sweep batch or streams.")
    points = measures[axis]()
    return {"axis": axis, "points": points, "words": describe_growth(axis, points)}


@contextmanager
def opening(specs: Iterable[TimedSpec], tell: Tell) -> Iterator[list[TimedProcess]]:
    """Give a process for each spec, and close them all."""
    with ExitStack() as stack:
        yield [stack.enter_context(open_process(spec, (), tell)) for spec in specs]


def time_rounds(processes: Sequence[TimedProcess], batch: int, seconds: float, tell: Tell) -> dict[str, Series]:
    """Time processes in the rounds of a session of their own.

    Raises:
        EngineError: one failed.
    """
    found: dict[str, Series] = {}
    refused: dict[str, str] = {}
    take_turns(processes, SINGLE, batch, seconds, tell, found, refused)
    if refused:
        raise EngineError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    return found


def sweep_batches(spec: TimedSpec, seconds: float, tell: Tell) -> list[Record]:
    """One engine for each batch size; `value` is the size, efficiency an image's time at 1 over that at the size."""
    with opening([replace(spec, batches=BATCHES)], tell) as [one]:
        series = {batch: time_rounds([one], batch, seconds, tell)[one.name] for batch in BATCHES}
        points = [make_point(batch, found, one, batch) for batch, found in series.items()]
    return set_efficiency(points, lambda point: point["images_per_s"])


def sweep_threads(spec: TimedSpec, cores: int, seconds: float, tell: Tell) -> list[Record]:
    """Inspectors that differ in threads take turns; efficiency is throughput over threads times that of one."""
    counts = sorted({*(2**power for power in range(cores.bit_length())), cores})
    specs = [replace(spec, name=f"{spec.name}, {n} threads", threads=n, batches=(1,)) for n in counts]
    with opening(specs, tell) as processes:
        found = time_rounds(processes, 1, seconds, tell)
        points = [make_point(n, found[one.name], one, 1) for n, one in zip(counts, processes, strict=True)]
    return set_efficiency(points, lambda point: point["images_per_s"] / point["value"])


def sweep_sizes(spec: TimedSpec, bundle: Bundle, seconds: float, tell: Tell) -> list[Record]:
    """The camera's image grows: resized to the network's input, and cut into tiles; efficiency is pixels a second."""
    golden = to_image(bundle.golden().image[0])
    points: list[Record] = []
    with opening([replace(spec, batches=(1,))], tell) as [one]:
        for series_name, method in METHODS.items():
            of_method = []
            for factor in FACTORS[series_name]:
                side_px = factor * max(golden.shape[:2])
                tell(f"{spec.name}: {series_name}, {side_px} px")
                one.ask("use_images", [enlarge(golden, side_px)])
                found = run_together([one], Turn(batch=1, query_size=1, seconds=seconds, method=method))
                of_method.append({**make_point(side_px, found, one, 1), "series": series_name})
            points += set_efficiency(of_method, lambda point: point["images_per_s"] * point["value"] ** 2)
    return points


def sweep_streams(spec: TimedSpec, cores: int, seconds: float, tell: Tell) -> list[Record]:
    """Inspectors in processes of their own work at once and share the cores; efficiency is throughput over one's."""
    points = []
    for count in sorted({1, 2, cores, 2 * cores}):
        threads = max(1, cores // count) if spec.device == "cpu" else spec.threads
        with opening([replace(spec, threads=threads, batches=(1,))] * count, tell) as processes:
            tell(f"{spec.name}: {count} streams of {threads} threads")
            found = run_together(processes, Turn(batch=1, query_size=1, seconds=seconds))
            points.append({**make_point(count, found, processes[0], 1), "threads": threads})
    return set_efficiency(points, lambda point: point["images_per_s"])


def run_together(processes: Sequence[TimedProcess], turn: Turn) -> Series:
    """Let all inspect at once; the series holds everyone's times, in turns that ran side by side."""
    with ThreadPoolExecutor(len(processes)) as pool:  # each thread waits for one process
        warm = list(pool.map(lambda one: one.warm_up(turn, turn.seconds / 2), processes))
        turns = list(pool.map(lambda one: one.run_turn(turn, 0), processes))
    return Series(warm_up=warm[0], turns=dict(enumerate(turns)), is_side_by_side=True)


def make_point(value: int, series: Series, one: TimedProcess, batch: int) -> Record:
    """Return a point of a sweep, without its efficiency."""
    return {
        "value": value,
        "images_per_s": series.images_per_s,
        "latency": summarise(series.latencies_ms),
        "parts_ms": series.parts_ms,
        "check": asdict(one.opened.checks[batch]),
    }


def set_efficiency(points: list[Record], rate: Callable[[Record], float]) -> list[Record]:
    """Add to each point its rate over the first one's."""
    for point in points:
        point["efficiency"] = rate(point) / rate(points[0])
    return points


def enlarge(image: Image, side_px: int) -> Image:
    """Return an image of side_px x side_px with the picture repeated, so that tiles look like the golden image."""
    height_px, width_px = image.shape[:2]
    tiled = np.tile(image, (-(-side_px // height_px), -(-side_px // width_px), 1))
    return np.ascontiguousarray(tiled[:side_px, :side_px])


def describe_growth(axis: str, points: Sequence[Record]) -> list[str]:
    """Say in words, of each series, where cost stops being linear, and which point has the highest throughput."""
    words = []
    for name in dict.fromkeys(point.get("series", "") for point in points):
        part = [point for point in points if point.get("series", "") == name]
        first, last, best = part[0], part[-1], max(part, key=lambda point: float(point["images_per_s"]))
        sentences = []
        if axis in LINEAR:
            linear = [first, *takewhile(lambda point: point["efficiency"] >= LINEAR_SHARE, part)][-1]
            sentences.append(f"{LINEAR[axis]} is {LINEAR_SHARE:.0%} of linear or more up to {linear['value']}")
            if linear is not last:
                after = part[part.index(linear) + 1]
                sentences[-1] += f", and {after['efficiency']:.0%} of it at {after['value']}"
        reached = next(one for one in part if one["images_per_s"] >= LINEAR_SHARE * best["images_per_s"])
        sentences.append(
            f"{WORDS[axis]} {best['value']} has the highest throughput, {best['images_per_s']:.4g} images/s, "
            f"{best['images_per_s'] / first['images_per_s']:.2f} times that of {first['value']}; {reached['value']} "
            f"has {LINEAR_SHARE:.0%} or more of it"
        )
        sentences.append(
            f"A query's time goes from {first['latency']['p50_ms']:.4g} to {last['latency']['p50_ms']:.4g} ms"
        )
        words.append((f"{name}: " if name else "") + ". ".join(sentences) + ".")
    return words

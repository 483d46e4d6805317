"""`ndp-rt bench --sweep AXIS`: how cost grows with batch size, threads, image size or parallel streams."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ndp_rt.bench.contenders.spec import ContenderSpec, Turn
from ndp_rt.bench.latency import Latency
from ndp_rt.bench.measure import Entrant, Series, Tell, open_entrant, take_turns
from ndp_rt.bench.peers.base import Image, to_image
from ndp_rt.bench.rows import describe_check
from ndp_rt.bench.scenarios import SCENARIOS
from ndp_rt.bundle.open import Bundle
from ndp_rt.errors import EngineError, InputError
from ndp_rt.evaluate.record import Record

AXES = ("batch", "threads", "size", "streams")
BATCHES = (1, 2, 4, 8, 16)
FACTORS = {"inspect": (1, 2, 4, 8, 16), "inspect_large": (1, 2, 4)}  # of the network's side; tiles cost most
METHODS = {"inspect": "decide", "inspect_large": "decide_large"}
LINEAR_SHARE = 0.8  # of the first point's efficiency; below it the words say that growth is no longer linear
SINGLE = SCENARIOS["single-stream"]


def measure_sweep(axis: str, spec: ContenderSpec, bundle: Bundle, cores: int, seconds: float, tell: Tell) -> Record:
    """Return {axis, points, words}; every point was checked like a row.

    Args:
        axis: of AXES.
        spec: one of our own contenders.
        bundle: its bundle.
        cores: usable ones.
        seconds: for each point.
        tell: gets lines of progress.

    Raises:
        InputError: an axis that the contender has not.
        NdpRtError: a point could not be measured.
    """
    measures: dict[str, Callable[[], list[Record]]] = {
        "batch": lambda: sweep_batches(spec, seconds, tell),
        "threads": lambda: sweep_threads(spec, cores, seconds, tell),
        "size": lambda: sweep_sizes(spec, bundle, seconds, tell),
        "streams": lambda: sweep_streams(spec, cores, seconds, tell),
    }
    if axis not in measures:
        raise InputError(f"--sweep is '{axis}'; one of {', '.join(AXES)} is taken.")
    if axis == "threads" and spec.device != "cpu":
        raise InputError(f"--sweep threads is for a CPU; the device is {spec.device}. Sweep batch or streams.")
    points = measures[axis]()
    return {"axis": axis, "points": points, "words": describe_growth(axis, points)}


def sweep_batches(spec: ContenderSpec, seconds: float, tell: Tell) -> list[Record]:
    """One engine for each batch size; `value` is the size, efficiency an image's time at 1 over that at the size."""
    entrant = open_entrant(dataclasses.replace(spec, batches=BATCHES), (), tell)
    points = []
    try:
        for batch in BATCHES:
            found = time_alone(entrant, batch, seconds, tell)
            points.append(make_point(batch, found, entrant, batch))
    finally:
        entrant.process.close()
    return set_efficiency(points, lambda point: point["images_per_s"])


def sweep_threads(spec: ContenderSpec, cores: int, seconds: float, tell: Tell) -> list[Record]:
    """Contenders that differ in threads take turns; efficiency is throughput over threads times that of one."""
    counts = sorted({*(2**power for power in range(cores.bit_length())), cores})
    specs = [dataclasses.replace(spec, name=f"{spec.name}, {n} threads", threads=n, batches=(1,)) for n in counts]
    entrants: list[Entrant] = []
    found: dict[str, Series] = {}
    refused: dict[str, str] = {}
    try:
        for one in specs:
            entrants.append(open_entrant(one, (), tell))
        take_turns(entrants, SINGLE, 1, seconds, tell, found, refused)
    finally:
        for entrant in entrants:
            entrant.process.close()
    if refused:
        raise EngineError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    points = [make_point(n, found[one.name], one, 1) for n, one in zip(counts, entrants, strict=True)]
    return set_efficiency(points, lambda point: point["images_per_s"] / point["value"])


def sweep_sizes(spec: ContenderSpec, bundle: Bundle, seconds: float, tell: Tell) -> list[Record]:
    """The camera's image grows: resized to the network's input, and cut into tiles; efficiency is pixels a second."""
    entrant = open_entrant(dataclasses.replace(spec, batches=(1,)), (), tell)
    golden = to_image(bundle.golden().image[0])
    points: list[Record] = []
    try:
        for series_name, method in METHODS.items():
            of_method = []
            for factor in FACTORS[series_name]:
                side_px = factor * max(golden.shape[:2])
                tell(f"{spec.name}: {series_name}, {side_px} px")
                entrant.process.ask("use_images", [enlarge(golden, side_px)])
                turn = Turn(batch=1, query_size=1, seconds=seconds, method=method)
                warm = entrant.process.warm_up(turn, seconds / 2)
                found = Series(warm_up=warm, turns={0: entrant.process.run_turn(turn, 0)})
                of_method.append({**make_point(side_px, found, entrant, 1), "series": series_name})
            points += set_efficiency(of_method, lambda point: point["images_per_s"] * point["value"] ** 2)
    finally:
        entrant.process.close()
    return points


def sweep_streams(spec: ContenderSpec, cores: int, seconds: float, tell: Tell) -> list[Record]:
    """Inspectors in processes of their own work at once and share the cores; efficiency is throughput over one's."""
    counts = sorted({1, 2, cores, 2 * cores})
    points = []
    for count in counts:
        threads = max(1, cores // count) if spec.device == "cpu" else spec.threads
        one = dataclasses.replace(spec, threads=threads, batches=(1,))
        entrants: list[Entrant] = []
        try:
            for _ in range(count):
                entrants.append(open_entrant(one, (), tell))
            tell(f"{spec.name}: {count} streams of {threads} threads")
            found = run_together(entrants, seconds)
            points.append({**make_point(count, found, entrants[0], 1), "threads": threads})
        finally:
            for entrant in entrants:
                entrant.process.close()
    return set_efficiency(points, lambda point: point["images_per_s"])


def run_together(entrants: Sequence[Entrant], seconds: float) -> Series:
    """Let all inspect at once; the series holds everyone's times, in turns that ran side by side."""
    turn = Turn(batch=1, query_size=1, seconds=seconds)
    with ThreadPoolExecutor(len(entrants)) as pool:  # each thread waits for one process
        warm = list(pool.map(lambda one: one.process.warm_up(turn, seconds / 2), entrants))
        turns = list(pool.map(lambda one: one.process.run_turn(turn, 0), entrants))
    return Series(warm_up=warm[0], turns=dict(enumerate(turns)), is_side_by_side=True)


def time_alone(entrant: Entrant, batch: int, seconds: float, tell: Tell) -> Series:
    """Time one entrant in the rounds of a session of its own.

    Raises:
        EngineError: it failed.
    """
    found: dict[str, Series] = {}
    refused: dict[str, str] = {}
    take_turns([entrant], SINGLE, batch, seconds, tell, found, refused)
    if refused:
        raise EngineError(refused[entrant.name])
    return found[entrant.name]


def make_point(value: int, series: Series, entrant: Entrant, batch: int) -> Record:
    """Return a point of a sweep, without its efficiency."""
    return {
        "value": value,
        "images_per_s": series.images_per_s,
        "latency": Latency.of(series.latencies_ms).to_json(),
        "parts_ms": series.parts_ms,
        "check": describe_check(entrant.opened.checks[batch]),
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
    """Say in words where cost stops being linear."""
    return [_DESCRIBE[axis](points)] if axis != "size" else _describe_sizes(points)


def _describe_batches(points: Sequence[Record]) -> str:
    best = max(points, key=lambda point: float(point["images_per_s"]))
    if best["efficiency"] < 1 / LINEAR_SHARE:
        return (
            f"An image costs the same in every batch within {1 / LINEAR_SHARE - 1:.0%}: time grows linearly with the "
            "batch from the first image on, so larger batches bring latency alone."
        )
    reached = next(point for point in points if point["images_per_s"] >= LINEAR_SHARE * best["images_per_s"])
    return (
        f"Time grows more slowly than the batch up to {reached['value']}, which has {LINEAR_SHARE:.0%} or more of the "
        f"best throughput ({best['images_per_s']:.4g} images/s at batch {best['value']}, {best['efficiency']:.2f} "
        "times that of batch 1); beyond it time grows about linearly."
    )


def _describe_threads(points: Sequence[Record]) -> str:
    linear = last_linear(points)
    words = f"Throughput grows with the threads up to {linear['value']} ({linear['efficiency']:.0%} of linear)"
    if linear is points[-1]:
        return words + ", as far as the cores go."
    after = points[list(points).index(linear) + 1]
    return words + f"; with {after['value']} it has {after['efficiency']:.0%} of linear."


def _describe_streams(points: Sequence[Record]) -> str:
    one, best, last = points[0], max(points, key=lambda point: float(point["images_per_s"])), points[-1]
    if best is one:
        words = f"One stream with all cores has the highest throughput, {one['images_per_s']:.4g} images/s"
    else:
        words = (
            f"{best['value']} streams have the highest throughput, {best['images_per_s']:.4g} images/s, "
            f"{best['efficiency']:.2f} times that of one stream with all cores"
        )
    return (
        f"{words}; with {last['value']} streams it is {last['efficiency']:.2f} times as high as with one, and an image "
        f"takes {last['latency']['p50_ms']:.4g} ms instead of {one['latency']['p50_ms']:.4g}."
    )


def _describe_sizes(points: Sequence[Record]) -> list[str]:
    words = []
    for name in dict.fromkeys(point["series"] for point in points):
        part = [point for point in points if point["series"] == name]
        first, last = part[0], part[-1]
        growth = last["latency"]["p50_ms"] / first["latency"]["p50_ms"]
        sentence = (
            f"{name}: {(last['value'] / first['value']) ** 2:.0f} times the pixels take {growth:.3g} times as long"
        )
        linear = last_linear(part)
        if name == "inspect":
            sentence += (
                ": the image is resized to the network's size, so that only resizing it, and the map back, grow."
            )
        elif linear is first:
            after = part[1]
            sentence += (
                f"; tiles overlap, so that a pixel costs {1 / after['efficiency']:.2g} times as much at "
                f"{after['value']} px, and {1 / last['efficiency']:.2g} times at {last['value']} px."
            )
        else:
            sentence += f"; a pixel costs no more than {1 / LINEAR_SHARE:.2f} times as much up to {linear['value']} px."
        words.append(sentence)
    return words


def last_linear(points: Sequence[Record]) -> Record:
    """Return the last point before efficiency falls below LINEAR_SHARE."""
    linear = points[0]
    for point in points:
        if point["efficiency"] < LINEAR_SHARE:
            break
        linear = point
    return linear


_DESCRIBE: dict[str, Callable[[Sequence[Record]], str]] = {
    "batch": _describe_batches,
    "threads": _describe_threads,
    "streams": _describe_streams,
}

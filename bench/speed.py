"""`python -m ndp_rt.bench.speed REWRITTEN.ndp PLAIN.ndp`: what the exact rewrites bring, and what inspection adds.

Both bundles hold the same network: one as exported, one exported with --no-rewrite. Their engines take turns in one
process (first one, then the other goes first), so that a machine that slows down slows both. Inside the clock: an image
in memory to the decision; reading files is outside. Each record states the error beside the time.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ndp_rt.bench.record import Record, append_record, start_record
from ndp_rt.bundle.open import Bundle, Golden, open_bundle
from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.inspector import Inspector
from ndp_rt.plan.open_plan import open_plan

FORMAT = "ndp-rt speed"
FORMAT_VERSION = 1
WARM_UP_COUNT = 3
MIN_PAIR_COUNT = 5
SAME_NETWORK = 1e-3  # golden maps of two exports of one network differ by float32 roundings alone
RESULTS = Path("bench/results/speed.jsonl")


@dataclass(kw_only=True)
class Side:
    """One of the two bundles: its measured times in milliseconds, and its error."""

    name: str
    bundle: Bundle
    golden: Golden
    map_max_abs_error: float = 0.0
    engine_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)

    def outside_ms(self) -> NDArray[np.float64]:
        """Return the time that each inspection spent outside the engine."""
        return np.asarray(np.subtract(self.total_ms, self.engine_ms), dtype=np.float64)

    def to_json(self) -> Record:
        return {
            "name": self.name,
            "bundle": self.bundle.manifest.name,
            "fingerprint": self.bundle.fingerprint,
            "rewrites": list(self.bundle.manifest.model.rewrites),
            "map_max_abs_error": self.map_max_abs_error,
            "engine_ms": describe(self.engine_ms),
            "outside_engine_ms": describe(self.outside_ms()),
            "total_ms": describe(self.total_ms),
            "outside_engine_share": float(np.median(self.outside_ms() / np.array(self.total_ms))),
        }


def describe(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Return the 50th, 90th and 99th percentile of values."""
    return {f"p{share}": float(np.percentile(values, share)) for share in (50, 90, 99)}


def summarise_ratios(slow_ms: Sequence[float], fast_ms: Sequence[float]) -> dict[str, float]:
    """Return median, 10th and 90th percentile of slow / fast, pair by pair."""
    ratios = np.array(slow_ms) / np.array(fast_ms)
    return {
        "median": float(np.median(ratios)),
        "p10": float(np.percentile(ratios, 10)),
        "p90": float(np.percentile(ratios, 90)),
    }


def open_side(name: str, path: Path) -> Side:
    """Open a bundle and its golden vectors."""
    bundle = open_bundle(path)
    return Side(name=name, bundle=bundle, golden=bundle.golden())


def check_same_network(rewritten: Side, plain: Side) -> None:
    """Raise InputError unless both bundles hold one network, the first rewritten and the second not."""
    first, second = rewritten.bundle.manifest, plain.bundle.manifest
    if plain.bundle.manifest.model.rewrites or not rewritten.bundle.manifest.model.rewrites:
        raise InputError(
            f"{rewritten.bundle.path.name} has rewrites {list(first.model.rewrites)} and {plain.bundle.path.name} "
            f"{list(second.model.rewrites)}; the first is exported as usual, the second with --no-rewrite."
        )
    a, b = rewritten.golden, plain.golden
    is_same = first.input == second.input and a.image.shape == b.image.shape and np.array_equal(a.image, b.image)
    if not is_same or np.abs(a.map - b.map).max() > SAME_NETWORK:
        raise InputError(
            f"{rewritten.bundle.path.name} and {plain.bundle.path.name} answer differently to their golden images; "
            "two exports of one run are compared."
        )


def measure_map_error(side: Side, backend: str, threads: int) -> float:
    """Return the largest difference between the engine's maps and PyTorch's, over the bundle's golden images."""
    images, expected = side.golden.image, side.golden.map
    plan = open_plan(side.bundle, plan="fused", backend=backend, precision="fp32", threads=threads, build=True)
    map_out, reconstruction = (
        np.empty((1, *expected.shape[1:]), np.float32),
        np.empty((1, *images.shape[1:]), np.float32),
    )
    worst = 0.0
    try:
        for index in range(len(images)):
            plan.run(np.ascontiguousarray(images[index : index + 1]), map_out, reconstruction)
            worst = max(worst, float(np.abs(map_out[0] - expected[index]).max()))
    finally:
        plan.close()
    return worst


def take_turns(sides: tuple[Side, Side], inspectors: tuple[Inspector, Inspector], seconds: float) -> None:
    """Inspect golden images with both in turn for `seconds`, and for MIN_PAIR_COUNT pairs at least."""
    images = [np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8) for image in sides[0].golden.image]
    for inspector in inspectors:
        for _ in range(WARM_UP_COUNT):
            inspector.inspect(images[0])
    end = time.perf_counter() + seconds
    pair_count = 0
    while pair_count < MIN_PAIR_COUNT or time.perf_counter() < end:
        image = images[pair_count % len(images)]
        order = (0, 1) if pair_count % 2 == 0 else (1, 0)
        for index in order:
            times = inspectors[index].inspect(image).timings_ms
            sides[index].engine_ms.append(times["engine"])
            sides[index].total_ms.append(times["total"])
        pair_count += 1


def measure(rewritten_path: Path, plain_path: Path, *, seconds: float, threads: int, command: str) -> Record:
    """Compare the two bundles through OpenVINO in float32, and return the record.

    Args:
        rewritten_path: the bundle as exported.
        plain_path: the same run, exported with --no-rewrite.
        seconds: how long the two take turns.
        threads: of each engine.
        command: what the record says it was made with.

    Raises:
        NdpRtError: InputError for two different networks, BundleError, EngineError.
    """
    sides = open_side("rewritten", rewritten_path), open_side("plain", plain_path)
    check_same_network(*sides)
    for side in sides:
        side.map_max_abs_error = measure_map_error(side, "openvino", threads)
    options: dict[str, Any] = {"backend": "openvino", "precision": "fp32", "threads": threads, "threshold": 0.5}
    with Inspector.open(rewritten_path, **options) as first, Inspector.open(plain_path, **options) as second:
        take_turns(sides, (first, second), seconds)
    model = sides[0].bundle.manifest
    record = start_record(FORMAT, FORMAT_VERSION, command)
    record["model"] = model.model.to_json()
    record["input_px"] = [model.input.height_px, model.input.width_px]
    record["engine"] = {"backend": "openvino", "precision": "fp32", "threads": threads, "batch": 1, "plan": "fused"}
    record["inside_the_clock"] = "uint8 image in memory to decision; engine: the fused graph alone"
    record["pair_count"] = len(sides[0].engine_ms)
    record["sides"] = [side.to_json() for side in sides]
    record["plain_over_rewritten"] = summarise_ratios(sides[1].engine_ms, sides[0].engine_ms)
    return record


def make_table(record: Record) -> Table:
    """Return a record as a table."""
    title = f"OpenVINO f32, {record['engine']['threads']} threads, width {record['model']['width']}, ms"
    table = Table(title=title, title_justify="left")
    for heading in ("graph", "engine p50", "p90", "outside p50", "outside, of total", "map error"):
        table.add_column(heading, justify="left" if heading == "graph" else "right")
    for side in record["sides"]:
        table.add_row(
            side["name"],
            f"{side['engine_ms']['p50']:.2f}",
            f"{side['engine_ms']['p90']:.2f}",
            f"{side['outside_engine_ms']['p50']:.2f}",
            f"{side['outside_engine_share']:.1%}",
            f"{side['map_max_abs_error']:.1e}",
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, append the record; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.bench.speed", description=__doc__)
    parser.add_argument("rewritten", metavar="REWRITTEN.ndp", type=Path, help="a bundle as exported")
    parser.add_argument("plain", metavar="PLAIN.ndp", type=Path, help="the same run, exported with --no-rewrite")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they take turns (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS, help="file to append to (default: %(default)s)")
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(arguments)
    command = shlex.join(["python", "-m", "ndp_rt.bench.speed", *arguments])
    try:
        record = measure(args.rewritten, args.plain, seconds=args.seconds, threads=args.threads, command=command)
        append_record(record, args.out)
    except NdpRtError as error:
        print(f"ndp_rt.bench.speed: error: {error}", file=sys.stderr)
        return 1
    ratio = record["plain_over_rewritten"]
    console = Console()
    console.print(make_table(record))
    console.print(
        f"rewritten is {ratio['median']:.3f} times as fast as plain (median of {record['pair_count']} pairs; "
        f"10th to 90th percentile {ratio['p10']:.3f} to {ratio['p90']:.3f})",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"Appended to {args.out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m ndp_rt.bench.defect_boxes`: what the boxes of defects cost on the host, which has the map already.

Maps of one size with 0, 1, 10, 100 and 1000 regions take turns in one process, in another order every round. Inside the
clock: `list_defects`, a smoothed map in memory to the list of boxes. Each record states how many boxes were wrong.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ndp_rt.decide.regions import Defect, list_defects
from ndp_rt.errors import NdpRtError
from ndp_rt.evaluate.record import Record, append_record, start_record

FORMAT = "ndp-rt defect boxes"
FORMAT_VERSION = 1
REGION_COUNTS = (0, 1, 10, 100, 1000)
THRESHOLD = 0.5
REGION_PX, PITCH_PX = 5, 8  # side of a region, and the distance from one to the next
WARM_UP_COUNT = 20
RESULTS = Path("bench/results/defect-boxes.jsonl")


def make_map(
    region_count: int, size_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], set[tuple[int, int]]]:
    """Return a map [size_px, size_px] with square regions that reach THRESHOLD, and their first pixels (x, y)."""
    per_row = size_px // PITCH_PX
    places = rng.permutation(per_row**2)[:region_count]
    corners = {(int(place % per_row) * PITCH_PX, int(place // per_row) * PITCH_PX) for place in places}
    smoothed = rng.uniform(0.0, 0.4, (size_px, size_px)).astype(np.float32)
    for x, y in corners:
        smoothed[y : y + REGION_PX, x : x + REGION_PX] = rng.uniform(0.6, 1.0, (REGION_PX, REGION_PX))
    return smoothed, corners


def count_wrong(defects: Sequence[Defect], corners: set[tuple[int, int]]) -> int:
    """Return how many boxes are missing, doubled or of another place or size."""
    right = {
        (defect.x_px, defect.y_px)
        for defect in defects
        if (defect.width_px, defect.height_px, defect.area_px) == (REGION_PX, REGION_PX, REGION_PX**2)
    }
    return len(corners ^ right) + len(defects) - len(right)


def measure(*, round_count: int, size_px: int, command: str) -> Record:
    """Time the boxes of every number of regions in turn, and return the record.

    Args:
        round_count: how often each is timed.
        size_px: side of the maps; a multiple of PITCH_PX with room for the most regions.
        command: what the record says it was made with.
    """
    load_average = os.getloadavg()[0]  # of the last minute: what else the machine did
    rng = np.random.default_rng(0)
    cases = {count: make_map(count, size_px, rng) for count in REGION_COUNTS}
    times_ms: dict[int, list[float]] = {count: [] for count in REGION_COUNTS}
    wrong = 0
    for number in range(WARM_UP_COUNT + round_count):
        for count in rng.permutation(REGION_COUNTS):
            smoothed, corners = cases[int(count)]
            start = time.perf_counter_ns()
            defects = list_defects(smoothed, THRESHOLD, size_px, size_px)
            end = time.perf_counter_ns()
            wrong += count_wrong(defects, corners)
            if number >= WARM_UP_COUNT:
                times_ms[int(count)].append((end - start) / 1e6)
    record = start_record(FORMAT, FORMAT_VERSION, command)
    record["inside_the_clock"] = "list_defects: smoothed map in memory to the list of boxes"
    record["map_px"] = [size_px, size_px]
    record["opencv_threads"] = cv2.getNumThreads()
    record["load_average"] = load_average
    record["round_count"] = round_count
    record["wrong_box_count"] = wrong
    record["times_ms"] = {
        str(count): {f"p{share}": float(np.percentile(times, share)) for share in (50, 90, 99)}
        for count, times in times_ms.items()
    }
    return record


def make_table(record: Record) -> Table:
    """Return a record as a table."""
    side = record["map_px"][0]
    table = Table(title=f"{side} x {side} px, ms, {record['wrong_box_count']} wrong", title_justify="left")
    for heading in ("regions", "p50", "p90", "p99"):
        table.add_column(heading, justify="right")
    for count, times in record["times_ms"].items():
        table.add_row(count, *(f"{times[share]:.3f}" for share in ("p50", "p90", "p99")))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, append the record; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.bench.defect_boxes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of the maps in pixels (default: %(default)s)")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS, help="file to append to (default: %(default)s)")
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(arguments)
    least = PITCH_PX * int(np.ceil(np.sqrt(max(REGION_COUNTS))))
    if args.size < least or args.size % PITCH_PX or args.rounds < 1:
        parser.error(f"--size is a multiple of {PITCH_PX} from {least}, --rounds from 1")
    command = shlex.join(["python", "-m", "ndp_rt.bench.defect_boxes", *arguments])
    try:
        record = measure(round_count=args.rounds, size_px=args.size, command=command)
        append_record(record, args.out)
    except NdpRtError as error:
        print(f"ndp_rt.bench.defect_boxes: error: {error}", file=sys.stderr)
        return 1
    console = Console()
    console.print(make_table(record))
    console.print(f"Appended to {args.out}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Times an archive by one process, by several and by Ray: `python -m tests.archive.measure 10000`.

Ways run in turn, or with --beside at the same time, so that on a machine with other work they share what is left alike.
Prints images a second by wall clock, start and end of the run inside, images a second of processor time of all its
processes, and both per worker as ratios to one process.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import cv2
import psutil

from ndp_rt.cli.demo_page import BUNDLE, IMAGES
from ndp_rt.devices.machine import find_cpu

WAYS = {
    "one process": (1, ["--format", "parquet"]),
    "--workers 1": (1, ["--workers", "1"]),
    "--ray --workers 1": (1, ["--ray", "--workers", "1"]),
    "--workers 2": (2, ["--workers", "2"]),
    "--ray --workers 2": (2, ["--ray", "--workers", "2"]),
}


def make_archive(folder: Path, count: int, side_px: int) -> None:
    """Write the demo's photographs again and again, at one size."""
    pictures = [cv2.imread(str(path)) for path in sorted((IMAGES / "test").rglob("*.png"))]
    contents = [cv2.imencode(".png", cv2.resize(one, (side_px, side_px)))[1].tobytes() for one in pictures]
    for number in range(count):
        path = folder / f"{number % 100:02d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % len(contents)])


class Run:
    """A run, and the processor time of its processes as far as it was seen."""

    def __init__(self, command: list[str]) -> None:
        self.start_s = time.monotonic()
        self.taken_s: float | None = None
        self._process = psutil.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._busy_s: dict[int, float] = {}

    def look(self) -> None:
        """Note what its processes have used, and whether it has ended."""
        with contextlib.suppress(psutil.Error):
            for one in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    self._busy_s[one.pid] = times.user + times.system
        code = self._process.poll()
        if code is not None and self.taken_s is None:
            self.taken_s = time.monotonic() - self.start_s
            assert code in (0, 3), code

    @property
    def busy_s(self) -> float:
        return sum(self._busy_s.values())


def main() -> None:
    """Measure, and print a line of JSON for each run and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--beside", action="store_true")
    args = parser.parse_args()
    rates: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ndp-rt-archive-") as name:
        folder = Path(name)
        make_archive(folder / "images", args.count, args.side)
        what = f"{args.count} images of {args.side} px, {args.bundle.name}, --threads 1"
        print(f"{find_cpu().model_name}; {what}{', at the same time' if args.beside else ''}", flush=True)
        for number in range(args.rounds):
            for ways in [args.ways] if args.beside else [[way] for way in args.ways]:
                command = [sys.executable, "-m", "ndp_rt.cli", "inspect", str(args.bundle), str(folder / "images")]
                runs = {
                    way: Run([*command, "-o", str(folder / f"{number}{way}"), "--threads", "1", *WAYS[way][1]])
                    for way in ways
                }
                while any(run.taken_s is None for run in runs.values()):
                    time.sleep(0.1)
                    for run in runs.values():
                        run.look()
                for way, run in runs.items():
                    assert run.taken_s is not None
                    rates[way].append((args.count / run.taken_s, args.count / run.busy_s))
                    figures = {"s": round(run.taken_s, 2), "processor_s": round(run.busy_s, 2)}
                    print(json.dumps({"way": way, "round": number, **figures}), flush=True)
    print_table(rates)


def print_table(rates: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians over the rounds."""
    alone = [median(values) for values in zip(*rates.get("one process", [(float("nan"),) * 2]), strict=True)]
    for way, found in rates.items():
        by_clock, by_processor = (median(values) for values in zip(*found, strict=True))
        per_worker = by_clock / WAYS[way][0]
        print(
            f"{way:18} {by_clock:7.2f} images/s, per worker {per_worker / alone[0]:.3f} of one process; "
            f"{by_processor:7.2f} images per processor second, {by_processor / alone[1]:.3f}"
        )


if __name__ == "__main__":
    main()

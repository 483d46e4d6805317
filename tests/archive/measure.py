"""Times an archive by one process, by several and by Ray, in turn: `python -m tests.archive.measure 10000`.

Prints images a second by wall clock, start and end of the run inside, and the ratio per worker to one process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import cv2

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


def main() -> None:
    """Measure, and print a line of JSON for each run and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    args = parser.parse_args()
    rates: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ndp-rt-archive-") as name:
        folder = Path(name)
        make_archive(folder / "images", args.count, args.side)
        print(
            f"{find_cpu().model_name}; {args.count} images of {args.side} px, {args.bundle.name}, --threads 1",
            flush=True,
        )
        for number in range(args.rounds):
            for way in args.ways:
                out = folder / f"{number}{way}"
                command = [sys.executable, "-m", "ndp_rt.cli", "inspect", str(args.bundle), str(folder / "images")]
                start_s = time.monotonic()
                done = subprocess.run(
                    [*command, "-o", str(out), "--threads", "1", *WAYS[way][1]], stderr=subprocess.DEVNULL, check=False
                )
                taken_s = time.monotonic() - start_s
                assert done.returncode in (0, 3), done.returncode
                rates[way].append(args.count / taken_s)
                print(json.dumps({"way": way, "round": number, "s": round(taken_s, 2)}), flush=True)
    alone = median(rates.get("one process", [float("nan")]))
    for way, found in rates.items():
        rate = median(found)
        print(f"{way:18} {rate:6.2f} images/s, per worker {rate / WAYS[way][0] / alone:.3f} of one process")


if __name__ == "__main__":
    main()

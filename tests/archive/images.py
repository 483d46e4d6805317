"""Small images of an archive, and what its Parquet files hold."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pyarrow import parquet

from ndp_rt.pipeline.sinks import list_parts


def make_images(folder: Path, count: int, folder_count: int = 3) -> list[Path]:
    """Write images of 40 x 50 pixels into sub-folders; every hundredth has the content of an earlier one."""
    contents = []
    for seed in range(min(count, 100)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        contents.append(cv2.imencode(".png", pixels)[1].tobytes())
    paths = [folder / str(number % folder_count) / f"{number:05d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % 100])
    return sorted(paths)


def read_rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the rows of all parts, in order of their paths."""
    rows = [row for part in list_parts(out) for row in parquet.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: row["path"])


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what two runs have alike: no times, and nothing that an archive alone says."""
    dropped = ("size_bytes", "modified_ns", "overlay", "map")
    return [{k: v for k, v in row.items() if not k.endswith("_ms") and k not in dropped} for row in rows]


def remember(out: Path) -> dict[str, tuple[int, int]]:
    """Return which file each part is."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in list_parts(out)}

"""A hot folder of tests: images that come into it, runs of `ndp-rt watch`, and what they have written."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt.cli import main
from ndp_rt.folders import watch as watch_module
from ndp_rt.folders.rotation import RotatingTable, read_parts


def put(path: Path, seed: int = 0, modified_ns: int | None = None) -> Path:
    """Rename an image into a folder, as a careful camera does."""
    image = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    if modified_ns is not None:
        os.utime(hidden, ns=(modified_ns, modified_ns))
    return hidden.rename(path)


def run_watch(tiny_bundle: Path, hot: Path, *more: str) -> int:
    options = ["--settle", "0", "--poll", "0.01", "--stop-after-idle", "0", "--threads", "1"]
    return main(["watch", str(tiny_bundle), str(hot), "-o", str(hot.parent / "out"), *options, *more])


def read_all(out: Path) -> list[dict[str, Any]]:
    columns = ("path", "status", "score", "size_bytes", "modified_ns", "error")
    return [dict(zip(columns, row, strict=True)) for row in read_parts(out, columns)]


def fill_disk(monkeypatch: pytest.MonkeyPatch, *failures: bool) -> None:
    """Let the disk be full at these writes of a row, one after another, and tried again at once."""
    left, add = iter(failures), RotatingTable.add

    def fail(table: RotatingTable, row: dict[str, Any]) -> None:
        if next(left, False):
            raise watch_module.StorageError("no space left on device.")
        add(table, row)

    monkeypatch.setattr(RotatingTable, "add", fail)
    monkeypatch.setattr(watch_module, "RETRY_S", 0.0)

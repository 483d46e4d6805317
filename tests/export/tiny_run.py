"""A training run small enough for a test: 64 px, width 4, a few steps, on images made from a seed."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from ndp_rt.export.training.progress import LineReporter
from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.export.training.start import TrainRequest, train_run

TINY = {
    "width": 4,
    "height_px": 64,
    "width_px": 64,
    "crop_px": 64,
    "batch_size": 2,
    "phase_steps": (4, 5),
    "holdout": 0.2,
    "thread_count": 1,
}


def write_surface(folder: Path, count: int = 6) -> Path:
    """Write grey images of a noisy, striped surface, 80 x 72 px, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    stripes = 120 + 30 * np.sin(np.arange(72) / 3.0)
    for index in range(count):
        image = np.clip(stripes + rng.normal(0.0, 8.0, (80, 72)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def quiet_reporter() -> LineReporter:
    """Return a reporter whose lines go to the test's captured standard error."""
    return LineReporter(Console(stderr=True), interval_s=0.0)


def train_tiny(data: Path, run: Path, *, resumes: bool = False, seed: int = 0, **options: Any) -> RunFolder:
    """Train NDP-Net with TINY settings.

    `options` are fields of TrainRequest or NDP-Net's own; `changes` among them replaces settings.
    """
    changes = {**TINY, "seed": seed, **options.pop("changes", {})}
    own = {name: options.pop(name) for name in ("vgg", "reference", "teacher", "distil") if name in options}
    request = TrainRequest(
        data=data, run=run, family="ndpnet", preset="edge", changes=changes, options=own, resumes=resumes, **options
    )
    return train_run(request, quiet_reporter())

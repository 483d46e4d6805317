"""Runs of the families with pretrained features, small enough for a test: random weights, 64 px, a few steps."""

from pathlib import Path
from typing import Any

from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.export.training.start import TrainRequest, train_run
from tests.export.features.weights_file import write_weights
from tests.export.tiny_run import quiet_reporter

SMALL = {"height_px": 64, "width_px": 64, "crop_px": 32, "batch_size": 2, "thread_count": 1}


def train_small(
    family: str, data: Path, run: Path, *, resumes: bool = False, chooses_size: bool = False, **changes: Any
) -> RunFolder:
    """Train `gaussian` or `memseg` with random weights of the backbone."""
    weights = run.parent / "backbone.pth"
    if not weights.exists():
        write_weights(weights)
    steps = {"phase_steps": (4,)} if family == "memseg" else {}
    request = TrainRequest(
        data=data,
        run=run,
        family=family,
        preset="lite",
        changes={**SMALL, **steps, **changes},
        options={"backbone": "lite0", "backbone_weights": weights},
        chooses_size=chooses_size,
        resumes=resumes,
    )
    return train_run(request, quiet_reporter())

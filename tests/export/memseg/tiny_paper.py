"""Runs of MemSeg's preset `paper`, small enough for a test: random weights, 64 px, a few steps."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.export.training.start import TrainRequest, train_run
from tests.export.features.weights_file import write_weights
from tests.export.tiny_run import quiet_reporter

SMALL = {"height_px": 64, "width_px": 64, "batch_size": 2, "phase_steps": (3,), "thread_count": 1}
LAYERS = ((64, 64), (64, 128), (128, 256), (256, 512))  # of ResNet18: channels in and out


def random_resnet(seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict as torchvision's resnet18 has it, its values small and random."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan = shape[1] * shape[2] * shape[3]
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=generator) * (2.0 / fan) ** 0.5
        tensors[f"{norm}.weight"] = torch.rand(shape[0], generator=generator) + 0.5
        tensors[f"{norm}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
        tensors[f"{norm}.running_mean"] = 0.1 * torch.randn(shape[0], generator=generator)
        tensors[f"{norm}.running_var"] = torch.rand(shape[0], generator=generator) + 0.5
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("conv1", "bn1", (64, 3, 7, 7))
    for number, (c_in, c_out) in enumerate(LAYERS, 1):
        for block, first in enumerate((c_in, c_out)):
            name = f"layer{number}.{block}"
            add(f"{name}.conv1", f"{name}.bn1", (c_out, first, 3, 3))
            add(f"{name}.conv2", f"{name}.bn2", (c_out, c_out, 3, 3))
            if first != c_out:
                add(f"{name}.downsample.0", f"{name}.downsample.1", (c_out, first, 1, 1))
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    return tensors


def train_paper(
    data: Path, run: Path, *, memory: str = "images", backbone: str = "lite0", resumes: bool = False, **changes: Any
) -> RunFolder:
    """Train preset `paper` with random weights of the backbone."""
    weights = run.parent / f"{backbone}.pth"
    if not weights.exists():
        if backbone == "resnet18":
            torch.save(random_resnet(), weights)
        else:
            write_weights(weights)
    request = TrainRequest(
        data=data,
        run=run,
        family="memseg",
        preset="paper",
        changes={**SMALL, **changes},
        options={"backbone": backbone, "backbone_weights": weights, "memory": memory},
        resumes=resumes,
    )
    return train_run(request, quiet_reporter())

"""A finished run folder without training: a network of random weights and batch-norm statistics, 64 px, width 4."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from ndp_rt.export.models.ndpnet.network import NDPNet
from ndp_rt.export.models.ndpnet.settings import NdpNetSettings
from ndp_rt.export.training.checkpoint import save_tensors
from ndp_rt.export.training.run_folder import RunFolder, describe_run

WIDTH = 4


def random_network(height_px: int = 64, width_px: int = 64, seed: int = 0) -> NDPNet:
    """Return a network in eval mode whose every number is random, the batch norms' statistics too."""
    generator = torch.Generator().manual_seed(seed)
    model = NDPNet(WIDTH, height_px, width_px).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 8
            parameter.normal_(0.0, fan**-0.5, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.6, generator=generator)
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.2, generator=generator)
                module.running_var.uniform_(0.2, 0.9, generator=generator)
        model.set_reference(torch.rand(1, 3, height_px, width_px, generator=generator))
    return model


def random_image(seed: int, height: int = 64, width: int = 64) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return RGB pixels of a smooth random surface."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def write_random_run(folder: Path, held_out_count: int = 3) -> Path:
    """Write a run folder that says it has finished; return it."""
    settings = NdpNetSettings(width=WIDTH, height_px=64, width_px=64, crop_px=64)
    run = RunFolder(path=folder / "run")
    run.create()
    paths = []
    for index in range(held_out_count):
        path = folder / f"good_{index}.png"
        cv2.imwrite(str(path), random_image(index, 72, 80))
        paths.append(str(path))
    model, reference = random_network(), random_image(99)
    scaled = np.divide(reference.transpose(2, 0, 1)[None], np.float32(255), dtype=np.float32)
    model.set_reference(torch.from_numpy(scaled))
    cv2.imwrite(str(run / "reference.png"), reference[:, :, ::-1])
    save_tensors(run / "model.safetensors", model.state_dict(), {})
    run.write_json("calibration.json", paths)
    document = describe_run(
        "ndpnet", settings, "surface", "ndp-rt train surface -o run", {"data": {"root": str(folder)}}
    )
    run.write_json("run.json", {**document, "finished": True, "reference": {"name": "0.png", "rule": "by hand"}})
    return run.path

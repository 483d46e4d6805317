"""Random weights and memory banks that are the same at every build."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def build_seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what `make` returns, drawn with seed 0, in eval mode, none of its parameters to be trained.

    The variance of a layer's weights is 2 over the count of products that one of its values sums: values keep their
    size through however many layers, so that a map depends on all of them. PyTorch's own generator stays as it was.
    """
    # Weights made in a caller's inference mode would take no part in gradients.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(module.weight, std=(2.0 / count_products(module)) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model.eval().requires_grad_(False)


def count_products(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    """Return how many products a value of a layer sums, away from the borders."""
    if isinstance(layer, nn.ConvTranspose2d):
        # Stride s leaves a value every s-th tap in both directions. Those of stride 1 here get maps of 1 x 1: one tap.
        stride = layer.stride[0]
        return layer.in_channels * (layer.weight[0, 0].numel() / stride**2 if stride > 1 else 1.0)
    return float(layer.weight[0].numel())


def draw_bank(*shape: int) -> Tensor:
    """Return float32 features of a memory bank, normally distributed."""
    return torch.empty(shape).normal_()

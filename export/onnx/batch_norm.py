"""Folds batch norms into the convolutions before them: exact in eval mode."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def build_weights() -> Iterator[None]:
    """Build modules without gradients and without spending the random generator on weights that are replaced."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution that equals `conv` followed by `norm` in eval mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics has no fixed form to fold")
    with build_weights():
        folded = copy.deepcopy(conv)
        # float64 inside: one rounding instead of several
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
        folded.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype))
        shifted = norm.bias.double() + (bias - norm.running_mean.double()) * scale
        folded.bias = nn.Parameter(shifted.to(conv.weight.dtype))
    return folded


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in which every batch norm that follows a convolution in a Sequential is folded."""
    return _fold_inside(copy.deepcopy(module))


def _fold_inside(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _fold_inside(child))
    if not isinstance(module, nn.Sequential):
        return module
    steps: list[nn.Module] = []
    for step in module:
        if isinstance(step, nn.BatchNorm2d) and steps and isinstance(steps[-1], nn.Conv2d):
            steps[-1] = fold_batch_norm(steps[-1], step)
        else:
            steps.append(step)
    return nn.Sequential(*steps).train(module.training)

"""Mahalanobis distances to normal distributions, and random precision matrices for them."""

import torch
from torch import Tensor

DISTINCT_COUNT = 16


def draw_precisions(count: int, dim: int) -> Tensor:
    """Return inverse covariances float32 [count, dim, dim], positive definite, each in memory of its own.

    Only DISTINCT_COUNT of them differ, because making PaDiM's four gigabytes would take half a minute.
    """
    distinct = min(count, DISTINCT_COUNT)
    factors = torch.empty(distinct, dim, dim).normal_(std=dim**-0.5)
    some = factors @ factors.transpose(1, 2) + 0.01 * torch.eye(dim)
    precisions = torch.empty(count, dim, dim)
    for start in range(0, count, distinct):
        rows = precisions[start : start + distinct]
        rows.copy_(some[: rows.shape[0]])
    return precisions


def measure_mahalanobis(deltas: Tensor, precisions: Tensor) -> Tensor:
    """Return the distances [k, n] of k sets of n differences from their mean [k, n, c]; `precisions` are [k, c, c]."""
    squared = (torch.bmm(deltas, precisions) * deltas).sum(-1)
    return squared.clamp_min(0.0).sqrt()

"""Memory banks, distributions and smoothing, which several methods end with."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Distances at a time, 16 MiB: glibc takes memory of more than 32 MiB from the system anew at every call.
MAX_CHUNK_ELEMENTS = 2**22
# 256 MiB in a graph: its engine takes memory once, and PyTorch's exporter is slow on hundreds of chunks.
MAX_TRACED_CHUNK_ELEMENTS = 2**26


DISTINCT_COUNT = 16  # of inverse covariances


def draw_bank(*shape: int) -> Tensor:
    """Return float32 features of a memory bank, normally distributed."""
    return torch.empty(shape).normal_()


class Bank(nn.Module):
    """A memory's features [..., r, c], normally distributed, and their ||b||^2 [..., r]."""

    features: Tensor
    squared_norms: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("features", draw_bank(*shape))
        self.register_buffer("squared_norms", self.features.square().sum(-1))

    def measure_distances(self, queries: Tensor) -> Tensor:
        """Return the distances [q, r] of queries [q, c]."""
        partial = torch.addmm(self.squared_norms, queries, self.features.T, alpha=-2.0)
        return (partial + queries.square().sum(1, keepdim=True)).clamp_min(0.0).sqrt()

    def find_nearest_distances(self, queries: Tensor) -> Tensor:
        """Return the distances [q] of queries [q, c] to their nearest."""
        return find_nearest_distances(queries, self.features, self.squared_norms)


def find_nearest_distances(queries: Tensor, bank: Tensor, squared_norms: Tensor) -> Tensor:
    """Return the distances [q] of queries [q, c] to their nearest of a bank [r, c] with its `squared_norms` [r]."""
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined,no-untyped-call]
    limit = MAX_TRACED_CHUNK_ELEMENTS if is_traced else MAX_CHUNK_ELEMENTS
    rows = max(1, limit // int(queries.shape[0]))
    least: Tensor | None = None
    for start in range(0, bank.shape[0], rows):
        # ||a||^2 is the same for every b: it is added to the least alone.
        chunk = bank[start : start + rows]
        partial = torch.addmm(squared_norms[start : start + rows], queries, chunk.T, alpha=-2.0).amin(1)
        least = partial if least is None else torch.minimum(least, partial)
    assert least is not None  # a bank has rows
    return (least + queries.square().sum(1)).clamp_min(0.0).sqrt()


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


class GaussianSmoothing(nn.Module):
    """scipy.ndimage.gaussian_filter(mode="mirror") of maps [n, 1, h, w], as two passes; h and w above 4 sigma."""

    kernel: Tensor

    def __init__(self, sigma_px: float = 4.0) -> None:
        super().__init__()
        self.radius = int(4.0 * sigma_px + 0.5)  # SciPy's `truncate`
        weights = [math.exp(-0.5 * (x / sigma_px) ** 2) for x in range(-self.radius, self.radius + 1)]
        self.register_buffer("kernel", torch.tensor(weights) / math.fsum(weights), persistent=False)

    def forward(self, anomaly_map: Tensor) -> Tensor:
        padded = functional.pad(anomaly_map, (self.radius,) * 4, mode="reflect")
        rows = functional.conv2d(padded, self.kernel.view(1, 1, -1, 1))
        return functional.conv2d(rows, self.kernel.view(1, 1, 1, -1))

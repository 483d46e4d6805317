"""Nearest neighbours in a memory bank, by brute force: ||a||^2 - 2 a b + ||b||^2, the products as matrix products."""

import torch
from torch import Tensor

# Distances at a time, 16 MiB: glibc takes memory of more than 32 MiB from the system anew at every call.
MAX_CHUNK_ELEMENTS = 2**22
# 256 MiB in a graph: its engine takes memory once, and PyTorch's exporter is slow on hundreds of chunks.
MAX_TRACED_CHUNK_ELEMENTS = 2**26


def measure_squared_norms(bank: Tensor) -> Tensor:
    """Return ||b||^2 [...] of a bank [..., c]; computed once, where the bank is made."""
    return bank.square().sum(-1)


def measure_distances(queries: Tensor, bank: Tensor, squared_norms: Tensor) -> Tensor:
    """Return the distances [q, r] of queries [q, c] to a bank [r, c] with its `squared_norms` [r]."""
    partial = torch.addmm(squared_norms, queries, bank.T, alpha=-2.0)
    return (partial + queries.square().sum(1, keepdim=True)).clamp_min(0.0).sqrt()


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

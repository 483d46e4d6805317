"""Nearest neighbours in a memory bank, by brute force: ||a||^2 - 2 a b + ||b||^2, the products as matrix products."""

import torch
from torch import Tensor

# 32 MiB of distances at a time: of 4 to 256 MiB, the fastest on two cores within the scatter; memory stays bounded.
MAX_CHUNK_ELEMENTS = 2**23


def measure_squared_norms(bank: Tensor) -> Tensor:
    """Return ||b||^2 [...] of a bank [..., c]; computed once, where the bank is made."""
    return bank.square().sum(-1)


def measure_distances(queries: Tensor, bank: Tensor, squared_norms: Tensor) -> Tensor:
    """Return the distances [q, r] of queries [q, c] to a bank [r, c] with its `squared_norms` [r]."""
    partial = torch.addmm(squared_norms, queries, bank.T, alpha=-2.0)
    return (partial + queries.square().sum(1, keepdim=True)).clamp_min(0.0).sqrt()


def find_nearest_distances(queries: Tensor, bank: Tensor, squared_norms: Tensor) -> Tensor:
    """Return the distances [q] of queries [q, c] to their nearest of a bank [r, c] with its `squared_norms` [r]."""
    rows = max(1, MAX_CHUNK_ELEMENTS // int(queries.shape[0]))
    least: Tensor | None = None
    for start in range(0, bank.shape[0], rows):
        # ||a||^2 is the same for every b: it is added to the least alone.
        chunk = bank[start : start + rows]
        partial = torch.addmm(squared_norms[start : start + rows], queries, chunk.T, alpha=-2.0).amin(1)
        least = partial if least is None else torch.minimum(least, partial)
    assert least is not None  # a bank has rows
    return (least + queries.square().sum(1)).clamp_min(0.0).sqrt()

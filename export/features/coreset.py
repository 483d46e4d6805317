"""Chooses few of many features so that they cover all: a coreset (PatchCore, Roth et al. 2022, arXiv 2106.08265)."""

import torch
from torch import Tensor


def choose_coreset(rows: Tensor, count: int, first: int) -> list[int]:
    """Return the numbers of `count` rows of [n, c]: `first`, then always the farthest from all that are chosen."""
    squares = rows.square().sum(1)
    least = torch.full_like(squares, torch.inf)  # squared distances, less the row's own square
    chosen = [first]
    while len(chosen) < count:
        last = rows[chosen[-1]]
        least = torch.minimum(least, torch.mv(rows, last).mul_(-2.0).add_(last @ last))
        chosen.append(int((least + squares).argmax()))
    return chosen

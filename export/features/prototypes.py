"""Finds few features that stand for many: the centres of k-means (Lloyd 1982)."""

import torch
from torch import Tensor

ROW_COUNT = 40_000  # of the features that centres are sought for; more change little
PASS_COUNT = 8
BLOCK = 8192  # rows that are compared at once


def find_prototypes(rows: Tensor, count: int) -> Tensor:
    """Return `count` centres of float32 rows [n, c], at most n.

    Rows and first centres are taken evenly, so the same rows give the same centres.
    """
    rows = rows[_spread(len(rows), min(len(rows), ROW_COUNT))]
    centres = rows[_spread(len(rows), count)].clone()
    for _ in range(PASS_COUNT):
        nearest = torch.cat([find_nearest(block, centres) for block in torch.split(rows, BLOCK)])
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        means = torch.zeros_like(centres).index_add_(0, nearest, rows) / sizes.clamp(min=1)
        centres = torch.where(sizes > 0, means, centres)
    return centres


def find_nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """Return the number of the centre [k, c] that is nearest to each row [n, c]."""
    return (centres.square().sum(1) - 2.0 * rows @ centres.T).argmin(1)


def _spread(length: int, count: int) -> Tensor:
    """Return `count` of the numbers below `length`, evenly."""
    return torch.linspace(0, length - 1, count, dtype=torch.float64).round().long()

"""The losses of both training phases; equation numbers are the paper's."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def reconstruction_loss(rebuilt: Tensor, good: Tensor) -> Tensor:
    """Return the mean squared error of two images [n, 3, h, w] (eq. 12, 15)."""
    return functional.mse_loss(rebuilt, good)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Return mask [n, 1, h, w] at a coarser size: 1 where any of a cell's pixels is 1.

    **Choice**: the largest, not the nearest or the mean, since the smallest defects would vanish at level 3.
    """
    return functional.adaptive_max_pool2d(mask, list(size))


def defect_perception_loss(good: Sequence[Tensor], defective: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the mean over levels of the squared error of normalised feature change and mask (eq. 2).

    **Choice**: "normalised" is min-max per image.

    Args:
        good: features of I_o, levels 1 to 5, [n, c_l, h_l, w_l].
        defective: features of I_ad, the same shapes.
        mask: float [n, 1, h, w], 0 or 1.
    """
    total = mask.new_zeros(())
    for f, g in zip(good, defective, strict=True):
        change = (f.float() - g.float()).square().mean(dim=1, keepdim=True)  # [n, 1, h_l, w_l]
        low, high = change.amin(dim=(2, 3), keepdim=True), change.amax(dim=(2, 3), keepdim=True)
        normalised = (change - low) / (high - low + 1e-8)
        total = total + functional.mse_loss(normalised, resize_mask(mask, change.shape[2:]))
    return total / len(good)


def repair_loss(repaired: Sequence[Tensor], good: Sequence[Tensor]) -> Tensor:
    """Return the squared error of F_out(I_ad) and F(I_o) over levels 3 to 5 (eq. 9): the mean of the levels' means."""
    errors = [functional.mse_loss(r.float(), f.float()) for r, f in zip(repaired, good, strict=True)]
    return torch.stack(errors).mean()


def focal_loss(logits: Tensor, mask: Tensor, *, gamma: float, balance: float) -> Tensor:
    """Return the mean focal loss of logits and mask, one shape; `balance` weighs mask pixels, 1 - it the others."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    wrong = torch.exp(-cross_entropy)  # the probability given to the truth
    weight = balance * mask + (1.0 - balance) * (1.0 - mask)
    return (weight * (1.0 - wrong) ** gamma * cross_entropy).mean()


def segmentation_loss(map_logits: Sequence[Tensor], mask: Tensor, *, gamma: float, balance: float) -> Tensor:
    """Return the focal loss of each AM_l and the mask resized to it, averaged over the levels (eq. 10)."""
    losses = [
        focal_loss(logits.float(), resize_mask(mask, logits.shape[2:]), gamma=gamma, balance=balance)
        for logits in map_logits
    ]
    return torch.stack(losses).mean()

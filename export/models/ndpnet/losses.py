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


def map_imitation_loss(map_logits: Sequence[Tensor], teacher_logits: Sequence[Tensor]) -> Tensor:
    """Return how far the maps are from the teacher's: the Kullback-Leibler divergence of each pixel's two outcomes.

    The mean over pixels, averaged over the levels; 0 where both agree, whatever the teacher thinks of a pixel.

    Args:
        map_logits: logits of AM_1 to AM_3, [n, 1, h_l, w_l].
        teacher_logits: the teacher's, the same shapes.
    """
    divergences = []
    for logits, wanted in zip(map_logits, teacher_logits, strict=True):
        target = torch.sigmoid(wanted.float())
        cross_entropy = functional.binary_cross_entropy_with_logits(logits.float(), target)
        own_entropy = functional.binary_cross_entropy_with_logits(wanted.float(), target)
        divergences.append(cross_entropy - own_entropy)
    return torch.stack(divergences).mean()


def feature_imitation_loss(projected: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Return the share of the teacher's features that the projected ones leave unexplained, averaged over the levels.

    **Choice**: each of the teacher's channels is brought to mean 0 and variance 1 over the batch, so that none counts
    for its size.

    Args:
        projected: the student's features, projected to the teacher's channels, [n, c_l, h_l, w_l].
        teacher_features: the same shapes.
    """
    errors = []
    for own, wanted in zip(projected, teacher_features, strict=True):
        variance, mean = torch.var_mean(wanted.float(), dim=(0, 2, 3), keepdim=True, correction=0)
        target = (wanted.float() - mean) * torch.rsqrt(variance + 1e-5)
        errors.append(functional.mse_loss(own.float(), target))
    return torch.stack(errors).mean()

"""MemSeg's losses: focal and L1, between the map's logits and the painted mask."""

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.export.models.memseg.settings import MemSegSettings

FOCAL_SCALE = 4.0


def segmentation_losses(logits: Tensor, mask: Tensor, settings: MemSegSettings) -> dict[str, Tensor]:
    """Return the weighted focal loss (Lin et al. 2017) and L1 loss of logits against a mask, [n, 1, h, w] both."""
    logits = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    balance = settings.focal_balance * mask + (1.0 - settings.focal_balance) * (1.0 - mask)
    focal = balance * (1.0 - torch.exp(-entropy)) ** settings.focal_gamma * entropy
    return {
        "focal": FOCAL_SCALE * focal.mean(),
        "l1": FOCAL_SCALE * settings.l1_weight * functional.l1_loss(torch.sigmoid(logits), mask),
    }

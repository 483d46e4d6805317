"""The losses of MemSeg's preset `paper`: L1 and focal, between the map's logits and the mask."""

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.export.models.memseg.paper.settings import PaperSettings


def find_losses(logits: Tensor, mask: Tensor, settings: PaperSettings) -> dict[str, Tensor]:
    """Return the weighted L1 loss of the map and focal loss (Lin et al. 2017) of both classes.

    Args:
        logits: [n, 2, h, w], of a good pixel and of a defect.
        mask: [n, 1, h, w], 0 or 1.
        settings: shares and gamma.
    """
    logs = functional.log_softmax(logits.float(), dim=1)
    log = torch.where(mask > 0.5, logs[:, 1:], logs[:, :1])  # of the right class
    focal = -((1.0 - log.exp()) ** settings.focal_gamma) * log
    return {
        "l1": (1.0 - settings.focal_share) * functional.l1_loss(logs[:, 1:].exp(), mask),
        "focal": settings.focal_share * focal.mean(),
    }

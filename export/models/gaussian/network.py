"""The network of the family `gaussian`: a backbone and the statistics of its features."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.features.statistics import STRIDES, Statistics
from ndp_rt.export.features.weights import BACKBONES

TYPICAL_PEAK = 0.25  # of the map: what the median good image's highest z-score becomes
UNUSUAL_PEAK = 0.75  # what twice that z-score becomes


class GaussianNet(nn.Module):
    """An image to its anomaly map; the statistics are to be fitted.

    Args:
        backbone: one of BACKBONES.
        height_px, width_px: of the images.
    """

    centre: Tensor
    slope: Tensor

    def __init__(self, backbone: str, height_px: int, width_px: int) -> None:
        super().__init__()
        self.backbone = BACKBONES[backbone].make(STRIDES)
        self.backbone.requires_grad_(False)
        self.statistics = Statistics(self.backbone.channels, height_px, width_px)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("slope", torch.ones(()))

    def find_scores(self, image: Tensor) -> Tensor:
        """Return z-scores [n, 1, h, w] of images [n, 3, h, w] from 0 to 1."""
        scores = self.statistics(self.backbone(image))
        return functional.interpolate(scores, size=image.shape[2:], mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the anomaly map [n, 1, h, w], 0 to 1."""
        return (torch.sigmoid((self.find_scores(image) - self.centre) * self.slope),)

    def set_range(self, peaks: Tensor) -> None:
        """Choose which z-scores become which values of the map, from the highest one of each good image, [n].

        The order of scores stays; the values leave room on both sides of the median image for thresholds.
        """
        typical = peaks.median().clamp_min(1.0)
        steepness = torch.logit(torch.tensor([TYPICAL_PEAK, UNUSUAL_PEAK]))
        self.slope.copy_((steepness[1] - steepness[0]) / typical)
        self.centre.copy_(typical - steepness[0] / self.slope)

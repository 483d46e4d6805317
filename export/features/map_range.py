"""Brings a score without bounds into the range of an anomaly map."""

import torch
from torch import Tensor, nn

TYPICAL_PEAK = 0.25  # of the map: what the median good image's highest score becomes
UNUSUAL_PEAK = 0.75  # what twice that score becomes


class MapRange(nn.Module):
    """Scores to the anomaly map, 0 to 1, by a sigmoid: their order stays, and thresholds have room on both sides."""

    centre: Tensor
    slope: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("slope", torch.ones(()))

    def forward(self, scores: Tensor) -> Tensor:
        return torch.sigmoid((scores - self.centre) * self.slope)

    def fit(self, peaks: Tensor) -> None:
        """Choose the range from the highest score of each good image, [n]."""
        typical = peaks.median().clamp_min(1.0)
        low, high = torch.logit(torch.tensor([TYPICAL_PEAK, UNUSUAL_PEAK])).tolist()
        self.slope.copy_((high - low) / typical)
        self.centre.copy_(typical - low / self.slope)

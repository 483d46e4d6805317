"""Brings a score without bounds into the range of an anomaly map."""

import torch
from torch import Tensor, nn

FOREIGN_LOGIT = 8.0  # what a foreign image's map is lifted by, for each unit


class MapRange(nn.Module):
    """Scores to the anomaly map, 0 to 1, by a sigmoid: their order stays, and thresholds have room on both sides."""

    centre: Tensor
    slope: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("slope", torch.ones(()))

    def forward(self, scores: Tensor, foreign: Tensor) -> Tensor:
        """Return the map of scores [n, 1, h, w], lifted where an image is foreign, [n, 1, 1, 1], 0 or more."""
        return torch.sigmoid((scores - self.centre) * self.slope + FOREIGN_LOGIT * foreign)

    def fit(self, scores: tuple[float, float], values: tuple[float, float]) -> None:
        """Choose the range: the map has `values`, between 0 and 1 and rising, where the scores are `scores`.

        Scores far above run into 1 and lose their order, first in half precision.
        """
        low, high = torch.logit(torch.tensor(values, dtype=torch.float64)).tolist()
        slope = (high - low) / max(scores[1] - scores[0], 1e-6)
        self.slope.fill_(slope)
        self.centre.fill_(scores[0] - low / slope)

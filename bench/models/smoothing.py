"""Gaussian smoothing of maps, as most of the methods end with it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class GaussianSmoothing(nn.Module):
    """scipy.ndimage.gaussian_filter(mode="mirror") of maps [n, 1, h, w], as two passes; h and w above 4 sigma."""

    kernel: Tensor

    def __init__(self, sigma_px: float = 4.0) -> None:
        super().__init__()
        self.radius = int(4.0 * sigma_px + 0.5)  # SciPy's `truncate`
        weights = [math.exp(-0.5 * (x / sigma_px) ** 2) for x in range(-self.radius, self.radius + 1)]
        self.register_buffer("kernel", torch.tensor(weights) / math.fsum(weights), persistent=False)

    def forward(self, anomaly_map: Tensor) -> Tensor:
        padded = functional.pad(anomaly_map, (self.radius,) * 4, mode="reflect")
        rows = functional.conv2d(padded, self.kernel.view(1, 1, -1, 1))
        return functional.conv2d(rows, self.kernel.view(1, 1, 1, -1))

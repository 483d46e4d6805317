"""Statistics of good images' features: how far each position of an image is from them.

The features of three strides are brought to the grid of the middle one. Over all positions of all good images they
have one mean and one covariance; the Mahalanobis distance of a position is then compared with the distances that good
images have at that place, because the zeros that a network pads with look unusual near the border. After PaDiM (Defard
et al. 2020, arXiv 2011.08785), whose Gaussian of each position needs more good images than most have.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (4, 8, 16)  # of the features
GRID_STRIDE = 8
RIDGE = 0.01  # added to the covariance of features with a variance of 1
SMALLEST_SPREAD = 1e-3  # of the distances at a position
BATCH_SIZE = 8


class Statistics(nn.Module):
    """Features of a backbone to the z-score of their distance from good ones.

    Args:
        channels: of the features of STRIDES.
        height_px, width_px: of the images.
    """

    distance_mean: Tensor
    distance_spread: Tensor

    def __init__(self, channels: Sequence[int], height_px: int, width_px: int) -> None:
        super().__init__()
        count = sum(channels)
        self.whiten = nn.Conv2d(count, count, 1).requires_grad_(False)  # features to independent ones of variance 1
        grid = (1, 1, height_px // GRID_STRIDE, width_px // GRID_STRIDE)
        self.register_buffer("distance_mean", torch.zeros(grid))
        self.register_buffer("distance_spread", torch.ones(grid))

    def find_distance(self, joined: Tensor) -> Tensor:
        """Return the Mahalanobis distance [n, 1, h, w] of features [n, c, h, w] on the grid."""
        whitened = self.whiten(joined)
        return torch.sqrt(torch.sum(whitened * whitened, dim=1, keepdim=True))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return z-scores [n, 1, h/8, w/8] of features of STRIDES."""
        return (self.find_distance(join(features)) - self.distance_mean) / self.distance_spread

    @torch.no_grad()
    def fit(self, joined: Tensor) -> None:
        """Set the statistics from good images' features on the grid, float32 [n, c, h, w]."""
        channels = joined.shape[1]
        mean = joined.mean(dim=(0, 2, 3), dtype=torch.float64)
        spread = joined.double().std(dim=(0, 2, 3)) + 1e-5
        moment = torch.zeros(channels, channels, dtype=torch.float64)
        for part in _split(joined):
            rows = ((part.double() - mean[:, None, None]) / spread[:, None, None]).permute(0, 2, 3, 1)
            rows = rows.reshape(-1, channels)
            moment += rows.T @ rows
        covariance = moment * channels / joined.numel() + RIDGE * torch.eye(channels, dtype=torch.float64)
        inverse_root = torch.linalg.inv(torch.linalg.cholesky(covariance)) / spread  # of columns
        self.whiten.weight.copy_(inverse_root[:, :, None, None])
        assert self.whiten.bias is not None
        self.whiten.bias.copy_(-inverse_root @ mean)
        distances = torch.cat([self.find_distance(part) for part in _split(joined)])
        self.distance_mean.copy_(distances.mean(dim=0, keepdim=True))
        self.distance_spread.copy_(distances.std(dim=0, keepdim=True, correction=0) + SMALLEST_SPREAD)


def join(features: Sequence[Tensor]) -> Tensor:
    """Return features of STRIDES on the grid of GRID_STRIDE, [n, c, h, w], c the sum of their channels."""
    fine, middle, coarse = features
    size = middle.shape[2:]
    return torch.cat(
        [
            functional.avg_pool2d(fine, GRID_STRIDE // STRIDES[0]),
            middle,
            functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False),
        ],
        dim=1,
    )


def _split(joined: Tensor) -> Iterator[Tensor]:
    yield from torch.split(joined, BATCH_SIZE)

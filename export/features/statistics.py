"""Statistics of good images' features: how far each position of an image is from them.

Over all positions of all good images, features have one mean and one covariance, which say in what unit each direction
is measured; a position's distance is that to the nearest of some hundred typical good features. After PaDiM (Defard et
al. 2020, arXiv 2011.08785), whose Gaussian of each position needs more good images than most have, and PatchCore (Roth
et al. 2022, arXiv 2106.08265), whose memory is larger and not whitened.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.features.prototypes import find_prototypes

STRIDES = (4, 8, 16)  # of the features that are joined
GRID_STRIDE = 8
RIDGE = 0.01  # added to the covariance of features with a variance of 1
SMALLEST_SPREAD = 1e-3
BATCH_SIZE = 8
PROTOTYPE_COUNT = 512  # 256 to 2048 find as much: bench/results/accuracy.md
ROWS_EACH = 20  # features for each prototype, at least: a feature that is its own prototype has no distance
# A foreign image's median distance, in good images', is farther above 1 than FOREIGN_SPREAD times what 98 % of the
# fitted images' are. Other lots of five surfaces stay below 3.4 times that, those of one fabric, turned, below 7.3.
FOREIGN_SPREAD = 6.0
FOREIGN_LIMITS = (1.5, 6.0)
FOREIGN_QUANTILE = 0.98
BLANK_RATIO = 0.6  # of fine structure to good images'; ten surfaces have 0.82 or more, blank frames 0.31 or less
BLANK_WEIGHT = 3.0  # of what is below, against how much farther an image lies
STRUCTURE_SIDE = 3  # of the window whose mean is taken off, in positions
LEVEL_BLOCK = 4  # positions a side; medians of blocks' means are those of the positions, at a sixteenth of the sorting


class Distance(nn.Module):
    """Features [n, c, h, w] to the Mahalanobis distance of each position, [n, 1, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(channels, channels, 1)  # to independent features of variance 1
        self.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        return find_length(self.whiten(features))

    @torch.no_grad()
    def fit(self, features: Tensor) -> Tensor:
        """Set the statistics from good images' features, float32 [n, c, h, w], and return their distances."""
        channels = features.shape[1]
        mean = features.mean(dim=(0, 2, 3), dtype=torch.float64)
        spread = features.double().std(dim=(0, 2, 3)) + SMALLEST_SPREAD
        moment = torch.zeros(channels, channels, dtype=torch.float64, device=features.device)
        for part in _split(features):
            rows = ((part.double() - mean[:, None, None]) / spread[:, None, None]).permute(0, 2, 3, 1)
            rows = rows.reshape(-1, channels)
            moment += rows.T @ rows
        covariance = moment * channels / features.numel() + RIDGE * torch.eye(channels, device=features.device)
        inverse_root = torch.linalg.inv(torch.linalg.cholesky(covariance)) / spread  # of the columns
        self.whiten.weight.copy_(inverse_root[:, :, None, None])
        assert self.whiten.bias is not None
        self.whiten.bias.copy_(-inverse_root @ mean)
        return torch.cat([self(part) for part in _split(features)])


class Nearest(nn.Module):
    """Whitened features [n, c, h, w] to the distance of each position from the nearest prototype, [n, 1, h, w].

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.compare = nn.Conv2d(channels, PROTOTYPE_COUNT, 1)  # to squared distances, less the feature's own square
        self.requires_grad_(False)

    def forward(self, whitened: Tensor) -> Tensor:
        squares = torch.sum(whitened * whitened, dim=1, keepdim=True)
        return torch.sqrt(functional.relu(squares + self.compare(whitened).amin(dim=1, keepdim=True)))

    @torch.no_grad()
    def fit(self, whitened: Tensor) -> None:
        """Set the prototypes from good images' features."""
        rows = whitened.permute(0, 2, 3, 1).flatten(0, 2)
        count = min(PROTOTYPE_COUNT, max(1, len(rows) // ROWS_EACH))
        prototypes = find_prototypes(rows, count)[torch.arange(PROTOTYPE_COUNT) % count]
        self.compare.weight.copy_(-2.0 * prototypes[:, :, None, None])
        assert self.compare.bias is not None
        self.compare.bias.copy_(prototypes.square().sum(1))


class Statistics(nn.Module):
    """Features of STRIDES to z-scores on the grid of GRID_STRIDE, and how foreign the image is.

    The distance of a position is compared with the distances that good images have at that place, because the zeros
    that a network pads with look unusual near the border. Then the image's median is taken off: another lot's light or
    weave lifts a whole image, a defect part of it.

    Args:
        channels: of the features of STRIDES.
        height_px, width_px: of the images.
    """

    distance_mean: Tensor
    distance_spread: Tensor
    structure: Tensor  # of the median good image
    foreign_ratio: Tensor  # of an image's median distance to good images'; foreign above

    def __init__(self, channels: Sequence[int], height_px: int, width_px: int) -> None:
        super().__init__()
        self.distance = Distance(sum(channels))
        self.nearest = Nearest(sum(channels))
        grid = (1, 1, height_px // GRID_STRIDE, width_px // GRID_STRIDE)
        self.register_buffer("distance_mean", torch.ones(grid))
        self.register_buffer("distance_spread", torch.ones(grid))
        self.register_buffer("structure", torch.ones(()))
        self.register_buffer("foreign_ratio", torch.ones(()))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what `compare` returns, of features of STRIDES."""
        return self.compare(*self.measure(join(features)))

    def measure(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [n, c, h, w] whitened, and how far they are from good ones, [n, 1, h, w]; of any size."""
        whitened = self.distance.whiten(joined)
        return whitened, self.nearest(whitened)

    def compare(self, whitened: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return z-scores [n, 1, h/8, w/8] from each image's median, and how foreign each image is, [n, 1, 1, 1].

        A foreign image shows another surface, or none: a dead, covered or dazzled camera's. Its features are farther
        away all over than any lot's, or have no structure. Without this its own median would make it look good.

        Args:
            whitened: the joined features, independent and of variance 1, on the grid.
            distances: from good images' features.
        """
        scores = (distances - self.distance_mean) / self.distance_spread
        far = functional.relu(find_level(distances / self.distance_mean) - self.foreign_ratio)
        blank = functional.relu(BLANK_RATIO - find_structure(whitened) / self.structure)
        return scores - find_level(scores), far + BLANK_WEIGHT * blank

    @torch.no_grad()
    def fit(self, joined: Tensor) -> Tensor:
        """Set the statistics from good images' features on the grid, [n, c, h, w], and return their distances."""
        self.distance.fit(joined)
        whitened = torch.cat([self.distance.whiten(part) for part in _split(joined)])
        self.nearest.fit(whitened)
        distances = torch.cat([self.nearest(part) for part in _split(whitened)])
        self.distance_mean.copy_(distances.mean(dim=0, keepdim=True))
        self.distance_spread.copy_(distances.std(dim=0, keepdim=True, correction=0) + SMALLEST_SPREAD)
        found = [find_structure(part) for part in _split(whitened)]
        self.structure.copy_(torch.cat(found).median() + SMALLEST_SPREAD)
        farthest = find_level(distances / self.distance_mean).flatten().quantile(FOREIGN_QUANTILE)
        self.foreign_ratio.copy_((1.0 + FOREIGN_SPREAD * (farthest - 1.0)).clamp(*FOREIGN_LIMITS))
        return distances


def find_length(whitened: Tensor) -> Tensor:
    """Return the length of each position's vector, [n, 1, h, w], of [n, c, h, w]."""
    return torch.sqrt(torch.sum(whitened * whitened, dim=1, keepdim=True))


def find_structure(whitened: Tensor) -> Tensor:
    """Return how much features differ from those around them, the median of an image, [n, 1, 1, 1]."""
    return find_level(find_length(whitened - average(whitened, STRUCTURE_SIDE)))


def average(values: Tensor, side: int) -> Tensor:
    """Return the mean of a window of odd `side` around each position, as far as it lies within [n, c, h, w]."""
    padding = side // 2
    rows = functional.avg_pool2d(values, (side, 1), 1, (padding, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, side), 1, (0, padding), count_include_pad=False)


def find_level(scores: Tensor) -> Tensor:
    """Return the median of each image's blocks, [n, 1, 1, 1], of scores [n, 1, h, w]."""
    blocks = functional.avg_pool2d(scores, min(LEVEL_BLOCK, *scores.shape[2:])).flatten(1)
    middle = int(blocks.shape[1]) // 2 + 1  # a number, so that graphs hold no sizes to compute
    lower_half, _ = torch.topk(blocks, middle, dim=1, largest=False)
    return lower_half.amax(dim=1)[:, None, None, None]


def join(features: Sequence[Tensor]) -> Tensor:
    """Return features of STRIDES on the grid of GRID_STRIDE, [n, c, h, w], c the sum of their channels."""
    fine, middle, coarse = features
    return torch.cat(
        [
            functional.avg_pool2d(fine, GRID_STRIDE // STRIDES[0]),
            middle,
            enlarge(coarse, STRIDES[2] // GRID_STRIDE),
        ],
        dim=1,
    )


def enlarge(values: Tensor, factor: int) -> Tensor:
    """Return values [n, c, h, w] enlarged bilinearly; by a factor, so that graphs hold no sizes to compute."""
    return functional.interpolate(values, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _split(features: Tensor) -> Iterator[Tensor]:
    yield from torch.split(features, BATCH_SIZE)

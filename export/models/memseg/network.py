"""MemSeg's preset `lite` in PyTorch: EfficientNet-Lite's features, statistics of good images as memory, a small U-Net.

**Choice**: where the paper's memory is a set of good images that each input is compared with, position by position,
this one is statistics of good images' features: their covariance, and some hundred that are typical. It means something
on surfaces without fixed positions, costs 1 x 1 convolutions, and its distances are comparable between surfaces. The
map of the statistics alone is mixed into the head's: the head knows faint and small defects of the kinds that it saw,
the statistics know anything that is unusual.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.features.map_range import MapRange
from ndp_rt.export.features.statistics import GRID_STRIDE, Distance, Statistics, average, enlarge, join
from ndp_rt.export.features.weights import BACKBONES

STRIDES = (2, 4, 8, 16)  # of the features; the statistics are of the last three
FEATURE_RANGE = (-8.0, 8.0)  # in standard deviations
DISTANCE_RANGE = (-4.0, 16.0)  # in standard deviations of good images' distances
LOCAL_SIDES = (9, 9, 9, 5)  # of the windows that local means are taken of, in positions of STRIDES
DISTANCE_SCALE = 0.5  # so that distances are about as large as features
WIDTHS = (16, 32, 48, 64)  # channels of the head, by level


def _convolve(c_in: int, c_out: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Standardise(nn.Module):
    """Values [n, c, h, w] in standard deviations of good images', clipped where a range is given."""

    mean: Tensor
    spread: Tensor

    def __init__(self, channels: int = 1, limits: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.limits = limits
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("spread", torch.ones(1, channels, 1, 1))

    def forward(self, values: Tensor) -> Tensor:
        scaled = (values - self.mean) / self.spread
        return scaled if self.limits is None else torch.clamp(scaled, *self.limits)

    def fit(self, values: Tensor) -> None:
        """Set mean and spread from good images' values."""
        self.mean.copy_(values.mean(dim=(0, 2, 3), keepdim=True))
        self.spread.copy_(values.std(dim=(0, 2, 3), keepdim=True) + 1e-5)


_Standardises = Iterable[Standardise]


class Distances(nn.Module):
    """Features [n, c, h, w] of three levels to how far they are from good ones: 1, 2 and 1 maps in [-2, 8].

    Args:
        channels: of the levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Distance(count) for count in channels)
        self.ranges = nn.ModuleList(Standardise(1, DISTANCE_RANGE) for _ in range(len(channels) + 1))

    def forward(self, features: Sequence[Tensor], joined: Tensor) -> list[Tensor]:
        """Return the levels' maps, with the joined features' distance [n, 1, h, w] beside the middle one."""
        found = [*(distance(level) for distance, level in zip(self.levels, features, strict=True)), joined]
        fine, middle, coarse, whole = (
            DISTANCE_SCALE * standardise(one) for standardise, one in zip(self.ranges, found, strict=True)
        )
        return [fine, torch.cat([middle, whole], dim=1), coarse]

    def fit(self, features: Sequence[Tensor], joined: Tensor) -> None:
        """Set the statistics from good images' features and the joined features' distances."""
        levels = zip(cast(Iterable[Distance], self.levels), features, strict=True)
        found = [*(distance.fit(level) for distance, level in levels), joined]
        for standardise, one in zip(cast(_Standardises, self.ranges), found, strict=True):
            standardise.fit(one)


class Memory(nn.Module):
    """What good images are like: features, to what is unusual about them.

    The head gets features less their local mean: where another lot is darker or its weave leans, absolute features
    would be new to it all over the image. What is unusual all over is left to the distances.

    Args:
        channels: of the features of STRIDES.
        height_px, width_px: of the images.
    """

    def __init__(self, channels: Sequence[int], height_px: int, width_px: int) -> None:
        super().__init__()
        self.features = nn.ModuleList(Standardise(count, FEATURE_RANGE) for count in channels)
        self.joined = Statistics(channels[1:], height_px, width_px)
        self.distances = Distances(channels[1:])
        self.local_joined = Distance(sum(channels[1:]))
        self.local_distances = Distances(channels[1:])
        self.channels = tuple(count + extra for count, extra in zip(channels, (0, 2, 4, 2), strict=True))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
        """Return the head's inputs, and what `Statistics.measure` returns of the joined features.

        Any size will do here: crops of training, too.
        """
        measured = self.joined.measure(join(features[1:]))
        first, *local = self._localise(features)
        levels = zip(
            local,
            self.distances(features[1:], measured[1]),
            self.local_distances(local, self.local_joined(join(local))),
            strict=True,
        )
        return [first, *(torch.cat(level, dim=1) for level in levels)], measured

    @torch.no_grad()
    def fit(self, features: Sequence[Tensor]) -> None:
        """Set the statistics from good images' features of STRIDES."""
        for standardise, level in zip(cast(_Standardises, self.features), features, strict=True):
            standardise.fit(level)
        self.distances.fit(features[1:], self.joined.fit(join(features[1:])))
        _, *local = self._localise(features)
        self.local_distances.fit(local, self.local_joined.fit(join(local)))

    def _localise(self, features: Sequence[Tensor]) -> list[Tensor]:
        scaled = (standardise(level) for standardise, level in zip(self.features, features, strict=True))
        return [level - average(level, side) for level, side in zip(scaled, LOCAL_SIDES, strict=True)]


class Head(nn.Module):
    """A small U-Net: the memory's outputs to logits of a defect, at half the image's size."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.entries = nn.ModuleList(_convolve(c_in, c_out) for c_in, c_out in zip(channels, WIDTHS, strict=True))
        self.middle = _convolve(WIDTHS[3], WIDTHS[3])
        pairs = ((3, 2), (2, 1), (1, 0))
        self.rises = nn.ModuleList(_convolve(WIDTHS[low] + WIDTHS[high], WIDTHS[high]) for low, high in pairs)
        self.last = nn.Conv2d(WIDTHS[0], 1, 1)
        assert self.last.bias is not None
        nn.init.constant_(self.last.bias, -3.0)  # most pixels are good

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        levels = [entry(x) for entry, x in zip(self.entries, inputs, strict=True)]
        x = self.middle(levels[3])
        for rise, level in zip(self.rises, levels[2::-1], strict=True):
            x = rise(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), level], dim=1))
        logits: Tensor = self.last(x)
        return logits


class MemSegLite(nn.Module):
    """An image to its anomaly map.

    Args:
        backbone: one of BACKBONES.
        height_px, width_px: of the images.
    """

    statistics_share: Tensor

    def __init__(self, backbone: str, height_px: int, width_px: int) -> None:
        super().__init__()
        self.backbone = BACKBONES[backbone].make(STRIDES)
        self.backbone.requires_grad_(False)
        self.memory = Memory(self.backbone.channels, height_px, width_px)
        self.head = Head(self.memory.channels)
        self.defect = Standardise()  # probabilities of good images
        self.unusual = Standardise()  # their z-scores
        self.register_buffer("statistics_share", torch.zeros(()))  # against the head's share of 1
        self.range = MapRange()

    def find_maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the head's probability of a defect, the statistics' z-score, and how foreign the image is.

        The first two are [n, 1, h/2, w/2], the last is [n, 1, 1, 1].
        """
        inputs, measured = self.memory(self.backbone(image))
        scores, foreign = self.memory.joined.compare(*measured)
        return torch.sigmoid(self.head(inputs)), enlarge(scores, GRID_STRIDE // STRIDES[0]), foreign

    def fuse(self, probability: Tensor, scores: Tensor) -> Tensor:
        """Return the two maps as one score without bounds."""
        fused: Tensor = self.defect(probability) + self.statistics_share * self.unusual(scores)
        return fused

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the anomaly map [n, 1, h, w], 0 to 1, of images [n, 3, h, w] from 0 to 1."""
        probability, scores, foreign = self.find_maps(image)
        return (enlarge(self.range(self.fuse(probability, scores), foreign), STRIDES[0]),)

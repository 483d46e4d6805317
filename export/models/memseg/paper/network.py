"""MemSeg in PyTorch: encoder, memory, multi-scale feature fusion, spatial attention and a U-Net's decoder.

Yang et al. 2023, arXiv 2205.00908. Where the paper leaves something open it is the authors' published code that counts;
**Choice** marks what is this project's own. f0 is the stem's output (stride 2), f1 to f3 are the features of strides 4,
8 and 16, s1 to s3 the same smoothed, d1 to d3 how they differ from the memory.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.features.backbone import Backbone
from ndp_rt.export.features.statistics import enlarge
from ndp_rt.export.features.weights import BACKBONES
from ndp_rt.export.models.memseg.paper.memory import KINDS, SMOOTH_PX, Memory

STRIDES = (2, 4, 8, 16)  # of the frozen features; those of all but the first are compared with the memory
DEEP_STRIDE = 32
REDUCTION, FEWEST_CHANNELS = 32, 8  # of coordinate attention
STEM_SHARE = 0.75  # channels of the decoder's last levels, of the stem's: 48 for ResNet18's 64
SCALES = {"resnet18": 100.0}  # of features and differences, by the authors
FEATURE_LIMITS = (-8.0, 8.0)  # in standard deviations of good images'
DIFFERENCE_LIMITS = (0.0, 16.0)  # in multiples of good images' mean


def _convolve(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True))


class Rise(nn.Module):
    """Twice the size, bilinear, then a convolution.

    **Choice**: half-pixel centres, where the authors align corners: every engine has that form of resizing.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = _convolve(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(enlarge(x, 2))
        return y


class Encoder(nn.Module):
    """An image to f0 to f3, and s1 to s3; frozen.

    **Choice**: in eval mode, batch norm too, so that the memory stays what it was compared with in training.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.backbone(image)
        smoothed = (functional.avg_pool2d(f, SMOOTH_PX, stride=1, padding=SMOOTH_PX // 2) for f in features[1:])
        return (*features, *smoothed)


class CoordinateAttention(nn.Module):
    """Weights of rows and of columns, by channel, 0 to 1 (Hou et al. 2021, arXiv 2103.02907), as one product."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(FEWEST_CHANNELS, channels // REDUCTION)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.rows = nn.Conv2d(inner, channels, 1)
        self.columns = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True)  # [n, c, h, 1], [n, c, 1, w]
        if self.training:  # the batch norm's statistics are of both
            h = rows.shape[2]
            both = _hard_swish(self.squeeze(torch.cat([rows, columns.transpose(2, 3)], dim=2)))
            rows, columns = both[:, :, :h], both[:, :, h:].transpose(2, 3)
        else:
            rows, columns = (_hard_swish(self.squeeze(one)) for one in (rows, columns))
        return torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns))


def _hard_swish(x: Tensor) -> Tensor:
    return x * torch.clamp(x + 3.0, 0.0, 6.0) * (1.0 / 6.0)


class FusionLevel(nn.Module):
    """Features and differences of one level: weighted by coordinate attention, and narrowed."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first = _convolve(c_in, c_in)
        self.attention = CoordinateAttention(c_in)
        self.narrow = nn.Sequential(*_convolve(c_in, c_out), *_convolve(c_out, c_out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(self.first(x) * self.attention(x))
        return y


class Fusion(nn.Module):
    """MSFF with spatial attention: features and differences of the levels, finest first, to the decoder's skips."""

    def __init__(self, channels: Sequence[int], inputs: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(FusionLevel(c_in, c_out) for c_in, c_out in zip(inputs, channels, strict=True))
        self.rises = nn.ModuleList(Rise(low, high) for high, low in pairwise(channels))

    def forward(self, features: Sequence[Tensor], differences: Sequence[Tensor]) -> list[Tensor]:
        both = [torch.cat(pair, dim=1) for pair in zip(features, differences, strict=True)]
        fused = [level(x) for level, x in zip(self.levels, both, strict=True)]
        masks = [difference.mean(dim=1, keepdim=True) for difference in differences]
        for number in range(len(fused) - 2, -1, -1):
            fused[number] = fused[number] + self.rises[number](fused[number + 1])
            masks[number] = masks[number] * enlarge(masks[number + 1], 2)
        return [x * mask for x, mask in zip(fused, masks, strict=True)]


class Decoder(nn.Module):
    """The features of stride 32 upwards, with the skips and the stem, to two classes' logits at the image's size."""

    def __init__(self, stem: int, channels: Sequence[int], deep: int) -> None:
        super().__init__()
        width = max(FEWEST_CHANNELS, round(STEM_SHARE * stem))
        self.stem = nn.Conv2d(stem, width, 3, padding=1)
        downwards = [*reversed(channels), width]  # of the skips
        entries = [deep, *(2 * count for count in downwards)]
        self.rises = nn.ModuleList(Rise(c_in, c_out) for c_in, c_out in zip(entries, [*downwards, width], strict=True))
        self.last = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, deep: Tensor, stem: Tensor, skips: Sequence[Tensor]) -> Tensor:
        x = deep
        for rise, skip in zip(self.rises, [*reversed(skips), self.stem(stem)], strict=False):
            x = torch.cat([rise(x), skip], dim=1)
        logits: Tensor = self.last(self.rises[-1](x))
        return logits


class Scale(nn.Module):
    """Values [n, c, h, w] in the scale that the fusion takes, by channel, without those that no good image comes near.

    **Choice**: values are cut at `limits`, in standard deviations of good images' or, of differences, in multiples of
    their mean. Nothing else bounds the product of three differences: on an image that resembles none, logits reach
    thousands, and an engine's last bits show in the map.

    Args:
        channels: of the values.
        limits: as above.
        is_difference: whether the values are differences, which have no sign.
    """

    factor: Tensor
    shift: Tensor
    gain: Tensor
    offset: Tensor

    def __init__(self, channels: int, limits: tuple[float, float], *, is_difference: bool) -> None:
        super().__init__()
        self.limits, self.is_difference = limits, is_difference
        for name, value in (("factor", 1.0), ("shift", 0.0), ("gain", 1.0), ("offset", 0.0)):
            self.register_buffer(name, torch.full((1, channels, 1, 1), value))

    def forward(self, values: Tensor) -> Tensor:
        scaled = values * self.factor
        if not self.is_difference:
            scaled = scaled + self.shift
        scaled = torch.clamp(scaled, *self.limits) * self.gain
        return scaled if self.is_difference else scaled + self.offset

    @torch.no_grad()
    def fit(self, values: Tensor, scale: float | None) -> None:
        """Learn the scale of good images' values.

        Args:
            values: of good images.
            scale: what values are multiplied by: the authors' for ResNet18. None: **choice** for EfficientNet-Lite,
                whose features are signed and of another size in each channel: features get a mean of 0 and a standard
                deviation of 1, differences a mean of 1, which leaves the skips of good images as they are.
        """
        mean = values.mean(dim=(0, 2, 3), keepdim=True)
        spread = (mean if self.is_difference else values.std(dim=(0, 2, 3), keepdim=True)) + 1e-5
        self.factor.copy_(1.0 / spread)
        self.shift.copy_(-mean / spread)
        self.gain.copy_(torch.ones_like(mean) if scale is None else scale * spread)
        self.offset.copy_(torch.zeros_like(mean) if scale is None else scale * mean)


class Segmentation(nn.Module):
    """f0 to f3 and d1 to d3 to the anomaly map; all that is trained.

    Args:
        channels: of f0 to f3.
        difference_channels: of d1 to d3.
        deep: the backbone's blocks that make stride 32 of f3, and their channels.
    """

    def __init__(
        self, channels: Sequence[int], difference_channels: Sequence[int], deep: nn.Module, width: int
    ) -> None:
        super().__init__()
        stem, *levels = channels
        self.feature_scales = nn.ModuleList(Scale(count, FEATURE_LIMITS, is_difference=False) for count in levels)
        self.difference_scales = nn.ModuleList(
            Scale(count, DIFFERENCE_LIMITS, is_difference=True) for count in difference_channels
        )
        self.deep = deep
        self.fusion = Fusion(levels, [a + b for a, b in zip(levels, difference_channels, strict=True)])
        self.decoder = Decoder(stem, levels, width)

    def find_logits(self, stem: Tensor, features: Sequence[Tensor], differences: Sequence[Tensor]) -> Tensor:
        """Return the logits of a good pixel and of a defect, [n, 2, h, w]."""
        scaled = [scale(x) for scale, x in zip(self.feature_scales, features, strict=True)]
        gaps = [scale(x) for scale, x in zip(self.difference_scales, differences, strict=True)]
        logits: Tensor = self.decoder(self.deep(features[-1]), stem, self.fusion(scaled, gaps))
        return logits

    def forward(self, f0: Tensor, f1: Tensor, f2: Tensor, f3: Tensor, d1: Tensor, d2: Tensor, d3: Tensor) -> Tensor:
        """Return the anomaly map [n, 1, h, w]: the probability of a defect."""
        logits = self.find_logits(f0, (f1, f2, f3), (d1, d2, d3))
        if logits.shape[1] == 1:  # merge_softmax
            return torch.sigmoid(logits)
        return torch.softmax(logits, dim=1)[:, 1:]


class MemSegPaper(nn.Module):
    """An image to its anomaly map.

    Args:
        backbone: one of BACKBONES.
        height_px, width_px: of the images; multiples of DEEP_STRIDE.
        memory: one of KINDS.
        count: how many images, or patches of each level, it remembers.
    """

    def __init__(self, backbone: str, height_px: int, width_px: int, *, memory: str, count: int) -> None:
        super().__init__()
        self.encoder = Encoder(BACKBONES[backbone].make(STRIDES))
        whole = BACKBONES[backbone].make((*STRIDES, DEEP_STRIDE))
        channels = self.encoder.backbone.channels
        sides = [(height_px // stride, width_px // stride) for stride in STRIDES[1:]]
        shapes = (
            [(count, c, *side) for c, side in zip(channels[1:], sides, strict=True)]
            if memory == "images"
            else [(count, c) for c in channels[1:]]
        )
        self.memory: Memory = KINDS[memory](shapes)
        difference_channels = [self.memory.count_channels(c) for c in channels[1:]]
        deep = whole.take_blocks(DEEP_STRIDE)
        self.segmentation = Segmentation(channels, difference_channels, deep, whole.channels[-1])

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the anomaly map [n, 1, h, w], 0 to 1, of images [n, 3, h, w] from 0 to 1."""
        found = self.encoder(image)
        return (self.segmentation(*found[: len(STRIDES)], *self.memory(found[len(STRIDES) :])),)


def merge_softmax(segmentation: Segmentation) -> None:
    """Let the last convolution give the difference of the two logits, in place: its sigmoid is their softmax."""
    last = segmentation.decoder.last
    assert last.bias is not None
    merged = nn.Conv2d(last.in_channels, 1, 3, padding=1)
    with torch.no_grad():
        merged.weight.copy_(last.weight[1:].double() - last.weight[:1].double())
        merged.bias.copy_(last.bias[1:].double() - last.bias[:1].double())  # type: ignore[union-attr]
    segmentation.decoder.last = merged

"""PaDiM: a normal distribution of ImageNet features at every position; the Mahalanobis distance is the map."""

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_wide_resnet50_2
from ndp_rt.bench.models.banks import GaussianSmoothing, draw_bank, draw_precisions, measure_mahalanobis
from ndp_rt.bench.models.method import CROP_FROM_PX, CROP_PX, Method, fit_map
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

CHANNEL_COUNT = 550  # Rd550 of the 1792 channels


class Padim(Method):
    """Three levels of features, some of their channels, and a distribution for each of (crop_px / 4)^2 positions."""

    channels: Tensor
    means: Tensor
    precisions: Tensor

    def __init__(
        self, *, input_px: int = CROP_FROM_PX, crop_px: int = CROP_PX, channel_count: int = CHANNEL_COUNT
    ) -> None:
        super().__init__(input_px, crop_px)
        self.side = crop_px // 4
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2(stages=3)
        self.smooth = GaussianSmoothing()
        self.register_buffer("channels", torch.randperm(sum(self.backbone.channels))[:channel_count])
        self.register_buffer("means", draw_bank(self.side**2, 1, channel_count))
        self.register_buffer("precisions", draw_precisions(self.side**2, channel_count))

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = [functional.interpolate(level, size=(self.side, self.side)) for level in self.backbone(x)]
        embedding = torch.cat(levels, 1).index_select(1, self.channels)  # [n, 550, 56, 56]
        deltas = embedding.flatten(2).permute(2, 0, 1) - self.means  # [3136, n, 550]
        distances = measure_mahalanobis(deltas, self.precisions).T.reshape(-1, 1, self.side, self.side)
        return self.smooth(fit_map(distances, x)), None

"""GCPF: clusters of ImageNet features, each a normal distribution; the distance to the nearest cluster is the map."""

import torch
from torch import Tensor, nn

from ndp_rt.bench.models.backbones import make_wide_resnet50_2
from ndp_rt.bench.models.banks import GaussianSmoothing, draw_bank, draw_precisions, measure_mahalanobis
from ndp_rt.bench.models.method import CROP_FROM_PX, CROP_PX, Method, fit_map
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

CLUSTER_COUNT = 10


class Clusters(nn.Module):
    """Normal distributions in the features of one level."""

    means: Tensor
    precisions: Tensor

    def __init__(self, cluster_count: int, channel_count: int) -> None:
        super().__init__()
        self.register_buffer("means", draw_bank(cluster_count, 1, channel_count))
        self.register_buffer("precisions", draw_precisions(cluster_count, channel_count))

    def forward(self, features: Tensor) -> Tensor:
        """Return the least Mahalanobis distance [n, 1, h, w] of features [n, c, h, w]."""
        n, c, h, w = features.shape
        points = features.permute(0, 2, 3, 1).reshape(1, -1, c)
        return measure_mahalanobis(points - self.means, self.precisions).amin(0).view(n, 1, h, w)


class Gcpf(Method):
    """Three levels of features, and clusters for each."""

    def __init__(
        self, *, input_px: int = CROP_FROM_PX, crop_px: int = CROP_PX, cluster_count: int = CLUSTER_COUNT
    ) -> None:
        super().__init__(input_px, crop_px)
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2(stages=3)
        self.clusters = nn.ModuleList(Clusters(cluster_count, count) for count in self.backbone.channels)
        self.smooth = GaussianSmoothing()

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = zip(self.clusters, self.backbone(x), strict=True)
        maps = [fit_map(clusters(features), x) for clusters, features in levels]
        return self.smooth(torch.stack(maps).mean(0)), None

"""GCPF: clusters of ImageNet features, each a normal distribution; the distance to the nearest cluster is the map."""

import torch
from torch import Tensor, nn

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_wide_resnet50_2
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.gaussians import draw_precisions, measure_mahalanobis
from ndp_rt.bench.models.seeding import build_seeded, draw_bank
from ndp_rt.bench.models.smoothing import GaussianSmoothing

RESIZE_PX = 256
INPUT_PX = 224
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


class Gcpf(nn.Module):
    """Three levels of features, and clusters for each."""

    def __init__(
        self, *, resize_px: int = RESIZE_PX, crop_px: int = INPUT_PX, cluster_count: int = CLUSTER_COUNT
    ) -> None:
        super().__init__()
        self.resize_px, self.crop_px = resize_px, crop_px
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2(stages=3)
        self.clusters = nn.ModuleList(Clusters(cluster_count, count) for count in self.backbone.channels)
        self.smooth = GaussianSmoothing()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, self.resize_px, self.crop_px))
        levels = zip(self.clusters, self.backbone(x), strict=True)
        maps = [fit_map(clusters(features), x) for clusters, features in levels]
        smooth = self.smooth(torch.stack(maps).mean(0))
        return fit_map(smooth, image, (self.resize_px - self.crop_px) // 2), smooth.amax((1, 2, 3))


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(Gcpf)


ARCHITECTURE = Architecture(
    name="gcpf",
    title="GCPF",
    source="Q. Wan, L. Gao, X. Li, L. Wen: Industrial Image Anomaly Localization Based on Gaussian Clustering of "
    "Pretrained Feature, IEEE Transactions on Industrial Electronics 2021, doi:10.1109/TIE.2021.3094452",
    input_px=INPUT_PX,
    counted=(
        "WideResNet-50-2 up to its third stage on 224 x 224 pixels, cut from 256 x 256 (the authors' repository "
        "smiler96/GCPF, GCPF.py: backbone, resize, crop_size).",
        "At 56 x 56, 28 x 28 and 14 x 14 positions a Mahalanobis distance to each of 10 clusters, with full inverse "
        "covariances of 256, 512 and 1024 channels; the least counts (k = 10 there).",
        "The mean of the three maps, each resized to 224 x 224, smoothed with a Gaussian of sigma 4; the image's score "
        "is its maximum (there).",
    ),
    left_out=(
        "Weights and clusters are random.",
        "Inverting the covariances, which the repository does while it tests, is taken as done beforehand.",
        "The map of the border that the crop cuts off repeats the map's edge.",
    ),
    reported=Reported(pixel_rocauc=97.44),
    build=build,
    typical_s=1.0,
)

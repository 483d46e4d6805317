"""PaDiM: a normal distribution of ImageNet features at every position; the Mahalanobis distance is the map."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_wide_resnet50_2
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.gaussians import draw_precisions, measure_mahalanobis
from ndp_rt.bench.models.seeding import build_seeded, draw_bank
from ndp_rt.bench.models.smoothing import GaussianSmoothing

RESIZE_PX = 256
INPUT_PX = 224
CHANNEL_COUNT = 550  # Rd550 of the 1792 channels


class Padim(nn.Module):
    """Three levels of features, some of their channels, and a distribution for each of (crop_px / 4)^2 positions."""

    channels: Tensor
    means: Tensor
    precisions: Tensor

    def __init__(
        self, *, resize_px: int = RESIZE_PX, crop_px: int = INPUT_PX, channel_count: int = CHANNEL_COUNT
    ) -> None:
        super().__init__()
        self.resize_px, self.crop_px = resize_px, crop_px
        self.side = crop_px // 4
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2(stages=3)
        self.smooth = GaussianSmoothing()
        self.register_buffer("channels", torch.randperm(sum(self.backbone.channels))[:channel_count])
        self.register_buffer("means", draw_bank(self.side**2, 1, channel_count))
        self.register_buffer("precisions", draw_precisions(self.side**2, channel_count))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, self.resize_px, self.crop_px))
        levels = [functional.interpolate(level, size=(self.side, self.side)) for level in self.backbone(x)]
        embedding = torch.cat(levels, 1).index_select(1, self.channels)  # [n, 550, 56, 56]
        deltas = embedding.flatten(2).permute(2, 0, 1) - self.means  # [3136, n, 550]
        distances = measure_mahalanobis(deltas, self.precisions).T.reshape(-1, 1, self.side, self.side)
        smooth = self.smooth(fit_map(distances, x))
        return fit_map(smooth, image, (self.resize_px - self.crop_px) // 2), smooth.amax((1, 2, 3))


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(Padim)


ARCHITECTURE = Architecture(
    name="padim",
    title="PaDiM",
    source="T. Defard, A. Setkov, A. Loesch, R. Audigier: PaDiM: a Patch Distribution Modeling Framework for Anomaly "
    "Detection and Localization, ICPR 2020 workshops, arXiv:2011.08785",
    input_px=INPUT_PX,
    counted=(
        "WideResNet-50-2 up to its third stage on 224 x 224 pixels, cut from 256 x 256 (the public "
        "xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master, main.py and datasets/mvtec.py).",
        "Features of three stages at 56 x 56 positions, 550 of 1792 channels chosen at random (WR50-Rd550 in its "
        "README).",
        "A Mahalanobis distance at every position, with the whole bank of inverse covariances: 3136 matrices of "
        "550 x 550, 3.8 GB in float32 (main.py there).",
        "The map resized to 224 x 224 and smoothed with a Gaussian of sigma 4; the image's score is its maximum "
        "(there).",
    ),
    left_out=(
        "Weights and distributions are random; only 16 of the inverse covariances differ, though each has its memory.",
        "Inverting the covariances, which the repository does while it tests, is taken as done beforehand.",
        "Nothing was checked against the paper, whose authors published no code that we know of.",
        "The map of the border that the crop cuts off repeats the map's edge.",
    ),
    reported=Reported(pro_auc=93.14),
    build=build,
    typical_s=1.0,
)

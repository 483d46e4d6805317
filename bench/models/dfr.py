"""DFR: ImageNet features of twelve layers, put together at every region and rebuilt by an autoencoder."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_vgg19
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.seeding import build_seeded

INPUT_PX = 256
REGION_PX = 4
LATENT_CHANNELS = 200
TAPS = (1, 3, 6, 8, 11, 13, 15, 17, 20, 22, 24, 26)  # relu1_1 to relu4_4
FEATURE_COUNT = 2 * 64 + 2 * 128 + 4 * 256 + 4 * 512


class RegionalFeatures(nn.Module):
    """The maps of twelve layers, each resized to the image and averaged over regions of 4x4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = make_vgg19(TAPS)

    def forward(self, x: Tensor) -> Tensor:
        regions = []
        for features in self.backbone(x):
            whole = functional.interpolate(features, size=x.shape[-2:], mode="bilinear", align_corners=True)
            regions.append(functional.avg_pool2d(whole, REGION_PX))
        return torch.cat(regions, 1)  # [n, 3456, 64, 64]


def make_autoencoder(c: int, latent: int) -> nn.Sequential:
    """Return 1x1 convolutions from c channels down to `latent` and back, batch norm and ReLU after each inner one."""
    inner = (c + 2 * latent) // 2
    counts = (c, inner, 2 * latent, latent, 2 * latent, inner, c)
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(counts):
        layers.append(nn.Conv2d(c_in, c_out, 1))
        if c_out not in (latent, c):
            layers += [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Dfr(nn.Module):
    """Regional features and their autoencoder."""

    def __init__(self, *, input_px: int = INPUT_PX, latent: int = LATENT_CHANNELS) -> None:
        super().__init__()
        self.input_px = input_px
        self.normalise = ImageNetNormalisation()
        self.features = RegionalFeatures()
        self.autoencoder = make_autoencoder(FEATURE_COUNT, latent)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, self.input_px))
        features = self.features(x)
        error = (features - self.autoencoder(features)).square().mean(1, keepdim=True)
        scores = functional.interpolate(error, size=x.shape[-2:], mode="bilinear", align_corners=True)
        return fit_map(scores, image), scores.amax((1, 2, 3))


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(Dfr)


ARCHITECTURE = Architecture(
    name="dfr",
    title="DFR",
    source="Y. Shi, J. Yang, Z. Qi: Unsupervised Anomaly Segmentation via Deep Feature Reconstruction, Neurocomputing "
    "2021, arXiv:2012.07122",
    input_px=INPUT_PX,
    counted=(
        "VGG-19 up to relu4_4 on 256 x 256 pixels, the maps of its twelve layers, 3456 channels (the authors' "
        "repository YoungGod/DFR, DFR-source/main.py: cnn_layers, img_size).",
        "Every map resized to 256 x 256 and averaged over 4 x 4 pixels: 64 x 64 regions (feature.py: Extractor).",
        "An autoencoder of 1x1 convolutions, 3456 to 1928 to 400 to 200 channels and back (feat_cae.py: FeatCAE).",
        "The mean squared error resized to 256 x 256; the image's score is its maximum (anoseg_dfr.py: score, "
        "metrics_detecion).",
    ),
    left_out=(
        "Weights are random.",
        "The latent 200 channels are those with which feat_cae.py times itself: training chooses, for each category, "
        "as many as keep 90 % of the features' variance.",
        "VGG-19 pads with zeros, where the repository reflects the edge.",
        "With the other four layers, which stand in main.py as a comment, there would be 5504 channels, whose "
        "autoencoder would take 2.3 times the multiplications; the accuracy that the NDP-Net paper states may be "
        "theirs.",
    ),
    reported=Reported(pixel_rocauc=94.80),
    build=build,
    typical_s=1.0,
)

"""DFR: ImageNet features of twelve layers, put together at every region and rebuilt by an autoencoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_vgg19
from ndp_rt.bench.models.method import Method, chain_points
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

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
    return chain_points((c, inner, 2 * latent, latent, 2 * latent, inner, c), lambda count: count in (latent, c))


class Dfr(Method):
    """Regional features and their autoencoder."""

    def __init__(self, *, input_px: int = INPUT_PX, latent: int = LATENT_CHANNELS) -> None:
        super().__init__(input_px)
        self.normalise = ImageNetNormalisation()
        self.features = RegionalFeatures()
        self.autoencoder = make_autoencoder(FEATURE_COUNT, latent)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.features(x)
        error = (features - self.autoencoder(features)).square().mean(1, keepdim=True)
        return functional.interpolate(error, size=x.shape[-2:], mode="bilinear", align_corners=True), None

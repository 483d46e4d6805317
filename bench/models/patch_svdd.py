"""Patch-SVDD: features of small and of large patches, each searched for among all the training images' patches."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.banks import Bank
from ndp_rt.bench.models.method import Method, chain

INPUT_PX = 256
IMAGE_COUNT = 280  # MVTec AD's carpet, table I of the NDP-Net paper
CHANNEL_COUNT = 64
SMALL_PX, SMALL_STRIDE_PX = 32, 4
LARGE_PX, LARGE_STRIDE_PX = 64, 16
ENCODER_CHANNELS = (32, 64, 128, 128, 64, 32, 32, CHANNEL_COUNT)
DENSE_STRIDE_PX = 2  # of the small encoder's first convolution, the only one with a stride


class SmallEncoder(nn.Module):
    """Features of 32x32 patches, of all of them whose corner is at even pixels, as one convolution over the image."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, ENCODER_CHANNELS[0], 3, DENSE_STRIDE_PX)
        others = chain(ENCODER_CHANNELS, lambda a, b: (nn.LeakyReLU(0.1), nn.Conv2d(a, b, 3)))
        self.layers = nn.Sequential(first, *others, nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.layers(image)  # [n, 64, 113, 113]
        return features


class LargeEncoder(nn.Module):
    """Features of 64x64 patches from those of the four small patches that make up each."""

    def __init__(self) -> None:
        super().__init__()
        dilation = SMALL_PX // DENSE_STRIDE_PX
        self.conv1 = nn.Conv2d(CHANNEL_COUNT, 128, 2, LARGE_STRIDE_PX // DENSE_STRIDE_PX, dilation=dilation)
        self.conv2 = nn.Conv2d(128, CHANNEL_COUNT, 1)

    def forward(self, small: Tensor) -> Tensor:
        return torch.tanh(self.conv2(functional.leaky_relu(self.conv1(small), 0.1)))  # [n, 64, 13, 13]


class PatchBank(Bank):
    """The features of every training image's patches, and what becomes of the distances to them."""

    window: Tensor

    def __init__(self, image_count: int, input_px: int, patch_px: int, stride_px: int) -> None:
        side = (input_px - patch_px) // stride_px + 1
        super().__init__(image_count * side**2, CHANNEL_COUNT)
        self.stride_px = stride_px
        self.register_buffer("window", torch.ones(1, 1, patch_px, patch_px), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return for each pixel the mean distance of the patches that cover it [n, 1, h, w]."""
        n, c, h, w = features.shape
        queries = features.permute(0, 2, 3, 1).reshape(-1, c)
        distances = self.find_nearest_distances(queries).view(n, 1, h, w)
        sums, counts = (
            functional.conv_transpose2d(one, self.window, stride=self.stride_px)
            for one in (distances, torch.ones_like(distances[:1]))
        )
        return sums / counts


class PatchSvdd(Method):
    """Both encoders and both banks; the product of their maps."""

    mean_image: Tensor

    def __init__(self, *, input_px: int = INPUT_PX, image_count: int = IMAGE_COUNT) -> None:
        super().__init__(input_px)
        self.register_buffer("mean_image", torch.rand(1, 3, input_px, input_px))
        self.small, self.large = SmallEncoder(), LargeEncoder()
        self.small_bank = PatchBank(image_count, input_px, SMALL_PX, SMALL_STRIDE_PX)
        self.large_bank = PatchBank(image_count, input_px, LARGE_PX, LARGE_STRIDE_PX)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        dense = self.small(x - self.mean_image)
        step = SMALL_STRIDE_PX // DENSE_STRIDE_PX
        return self.small_bank(dense[:, :, ::step, ::step]) * self.large_bank(self.large(dense)), None

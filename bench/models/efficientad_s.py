"""EfficientAD-S: student and autoencoder are taught a shallow teacher's features; their differences are the map."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.method import Method, chain
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

INPUT_PX = 256
CHANNEL_COUNT = 384
MAP_BORDER_PX = 4  # the patch description network does not pad: 56 positions where a quarter of 256 has 64
DECODER_SIDES = (3, 8, 15, 32, 63, 127, 56)


def make_patch_description_network(c_out: int) -> nn.Sequential:
    """Return PDN-S: features [n, c_out, 56, 56] of images [n, 3, 256, 256], each of 33x33 pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 128, 4),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(128, 256, 4),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(256, 256, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, c_out, 4),
    )


def make_autoencoder() -> nn.Sequential:
    """Return the autoencoder: features [n, 384, 56, 56] of images [n, 3, 256, 256], through 64 numbers."""
    encoder = chain((3, 32, 32, 64, 64, 64), lambda a, b: (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU(inplace=True)))
    layers: list[nn.Module] = [*encoder, nn.Conv2d(64, 64, 8)]
    for side in DECODER_SIDES:
        convolution = nn.Conv2d(64, 64, 3, 1, 1) if side == DECODER_SIDES[-1] else nn.Conv2d(64, 64, 4, 1, 2)
        layers += [nn.Upsample(size=side, mode="bilinear"), convolution, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(64, CHANNEL_COUNT, 3, 1, 1))


class EfficientAdS(Method):
    """Teacher, student with both halves of its output, autoencoder, and the normalisation of both maps."""

    teacher_mean: Tensor
    teacher_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__(INPUT_PX)
        self.normalise = ImageNetNormalisation()
        self.teacher = make_patch_description_network(CHANNEL_COUNT)
        self.student = make_patch_description_network(2 * CHANNEL_COUNT)
        self.autoencoder = make_autoencoder()
        self.register_buffer("teacher_mean", torch.randn(1, CHANNEL_COUNT, 1, 1))
        self.register_buffer("teacher_std", torch.rand(1, CHANNEL_COUNT, 1, 1) + 0.5)
        # The 90 % and 99.5 % quantiles of good images' maps, student's and autoencoder's.
        self.register_buffer("low", torch.rand(1, 2, 1, 1))
        self.register_buffer("high", torch.rand(1, 2, 1, 1) + 2.0)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        teacher = (self.teacher(x) - self.teacher_mean) / self.teacher_std
        of_teacher, of_autoencoder = self.student(x).chunk(2, 1)  # [n, 384, 56, 56] each
        student_map = (teacher - of_teacher).square().mean(1, keepdim=True)
        autoencoder_map = (self.autoencoder(x) - of_autoencoder).square().mean(1, keepdim=True)
        both = 0.1 * (torch.cat((student_map, autoencoder_map), 1) - self.low) / (self.high - self.low)
        scores = both.mean(1, keepdim=True)
        return functional.pad(scores, (MAP_BORDER_PX,) * 4), scores.amax((1, 2, 3))

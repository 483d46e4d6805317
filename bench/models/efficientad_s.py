"""EfficientAD-S: student and autoencoder are taught a shallow teacher's features; their differences are the map."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import ImageNetNormalisation
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.seeding import build_seeded

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
    layers: list[nn.Module] = []
    c_in = 3
    for c_out in (32, 32, 64, 64, 64):
        layers += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.ReLU(inplace=True)]
        c_in = c_out
    layers.append(nn.Conv2d(64, 64, 8))
    for side in DECODER_SIDES[:-1]:
        layers += [nn.Upsample(size=side, mode="bilinear"), nn.Conv2d(64, 64, 4, 1, 2), nn.ReLU(inplace=True)]
    layers += [nn.Upsample(size=DECODER_SIDES[-1], mode="bilinear"), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(inplace=True)]
    layers.append(nn.Conv2d(64, CHANNEL_COUNT, 3, 1, 1))
    return nn.Sequential(*layers)


class EfficientAdS(nn.Module):
    """Teacher, student with both halves of its output, autoencoder, and the normalisation of both maps."""

    teacher_mean: Tensor
    teacher_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.teacher = make_patch_description_network(CHANNEL_COUNT)
        self.student = make_patch_description_network(2 * CHANNEL_COUNT)
        self.autoencoder = make_autoencoder()
        self.register_buffer("teacher_mean", torch.randn(1, CHANNEL_COUNT, 1, 1))
        self.register_buffer("teacher_std", torch.rand(1, CHANNEL_COUNT, 1, 1) + 0.5)
        # The 90 % and 99.5 % quantiles of good images' maps, student's and autoencoder's.
        self.register_buffer("low", torch.rand(1, 2, 1, 1))
        self.register_buffer("high", torch.rand(1, 2, 1, 1) + 2.0)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, INPUT_PX))
        teacher = (self.teacher(x) - self.teacher_mean) / self.teacher_std
        of_teacher, of_autoencoder = self.student(x).chunk(2, 1)  # [n, 384, 56, 56] each
        student_map = (teacher - of_teacher).square().mean(1, keepdim=True)
        autoencoder_map = (self.autoencoder(x) - of_autoencoder).square().mean(1, keepdim=True)
        both = 0.1 * (torch.cat((student_map, autoencoder_map), 1) - self.low) / (self.high - self.low)
        scores = both.mean(1, keepdim=True)
        padded = functional.pad(scores, (MAP_BORDER_PX,) * 4)
        return fit_map(padded, image), scores.amax((1, 2, 3))


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(EfficientAdS)


ARCHITECTURE = Architecture(
    name="efficientad-s",
    title="EfficientAD-S",
    source="K. Batzner, L. Heckler, R. Koenig: EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level "
    "Latencies, WACV 2024, arXiv:2303.14535",
    input_px=INPUT_PX,
    counted=(
        "The small patch description network as teacher with 384 and as student with 768 channels, on 256 x 256 "
        "pixels, without padding (the reimplementation nelson1425/EfficientAD, common.py: get_pdn_small; we know "
        "of none by the authors).",
        "The autoencoder to 384 channels at 56 x 56 positions (get_autoencoder there).",
        "Two maps of mean squared differences, scaled by quantiles of good images' maps and averaged; the image's "
        "score is the maximum (efficientad.py: predict, test).",
    ),
    left_out=(
        "Weights, the teacher's mean and deviation and the quantiles are random.",
        "Dropout in the decoder, which anomalib has and which does nothing at inspection.",
    ),
    reported=Reported(),
    build=build,
    typical_s=1.0,
)

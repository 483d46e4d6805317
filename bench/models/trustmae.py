"""TrustMAE: an autoencoder whose code is put together from memory slots, and a perceptual distance from VGG-16."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_vgg16
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.seeding import build_seeded
from ndp_rt.export.models.ndpnet.vgg import TAPPED_LAYERS

INPUT_PX = 256
CHANNELS = (3, 64, 128, 256, 256)
SLOT_COUNT = 500
NEAREST_COUNT = 10
TAPPED_CHANNELS = (64, 128, 256, 512, 512)  # of relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3


class Memory(nn.Module):
    """Puts every position of a feature map together from its nearest slots; slots stand still at inspection."""

    slots: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slots", torch.randn(SLOT_COUNT, CHANNELS[-1]))

    def forward(self, features: Tensor) -> Tensor:
        n, c, h, w = features.shape
        queries = features.flatten(2).transpose(1, 2)  # [n, h * w, c]
        likeness = functional.normalize(queries, dim=2) @ functional.normalize(self.slots, dim=1).T
        nearest = likeness.topk(NEAREST_COUNT, dim=2)
        weights = torch.zeros_like(likeness).scatter(2, nearest.indices, nearest.values.softmax(dim=2))
        return (weights @ self.slots).transpose(1, 2).reshape(n, c, h, w)


def make_encoder() -> nn.Sequential:
    """Return [n, 3, 256, 256] to [n, 256, 16, 16]."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(CHANNELS):
        layers += [nn.Conv2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def make_decoder() -> nn.Sequential:
    """Return the encoder's mirror image, with values from 0 to 1."""
    layers: list[nn.Module] = []
    channels = CHANNELS[::-1]
    for c_in, c_out in pairwise(channels[:-1]):
        layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels[-2], 3, 4, 2, 1), nn.Sigmoid())


class TrustMae(nn.Module):
    """Maps the perceptual distance of image and reconstruction, position by position."""

    def __init__(self, input_px: int = INPUT_PX) -> None:
        super().__init__()
        self.input_px = input_px
        self.encoder = make_encoder()
        self.memory = Memory()
        self.decoder = make_decoder()
        self.normalise = ImageNetNormalisation()
        self.vgg = make_vgg16(TAPPED_LAYERS)
        self.weights = nn.ParameterList(torch.rand(1, channels, 1, 1) for channels in TAPPED_CHANNELS)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = fit_image(image, self.input_px)
        distance = self.measure_distance(x, self.decoder(self.memory(self.encoder(x))))
        return fit_map(distance, image), distance.amax(dim=(1, 2, 3))

    def measure_distance(self, x: Tensor, rebuilt: Tensor) -> Tensor:
        """Return the weighed squared gaps of unit features, added up over the five maps, [n, 1, h, w]."""
        total = torch.zeros_like(x[:, :1])
        pairs = zip(self.weights, self.vgg(self.normalise(x)), self.vgg(self.normalise(rebuilt)), strict=True)
        for weights, p, q in pairs:
            gap = (functional.normalize(p) - functional.normalize(q)).square()
            total = total + fit_map(functional.conv2d(gap, weights), x)
        return total


ARCHITECTURE = Architecture(
    name="trustmae",
    title="TrustMAE",
    source="D. S. Tan, Y.-C. Chen, T. P.-C. Chen, W.-C. Chen: TrustMAE: a noise-resilient defect classification "
    "framework using memory-augmented auto-encoders with trust regions, WACV 2021, arXiv:2012.14629",
    input_px=INPUT_PX,
    counted=(
        "A pass of encoder, memory and decoder, with sparse addressing (the paper's abstract): here each position of "
        "the code becomes a weighed sum of its nearest slots.",
        "A perceptual distance of image and reconstruction at every position (abstract), that of R. Zhang et al., CVPR "
        "2018 (says the NDP-Net paper, section II-B): VGG-16 on both images, five maps scaled to unit length, squared "
        "gaps weighed by 1 x 1 convolutions and added up at 256 x 256 (richzhang/PerceptualSimilarity, lpips/lpips.py: "
        "net vgg, spatial). VGG-16 has over 90 % of the page's sums.",
    ),
    left_out=(
        "Of the paper we had only the abstract. VGG-16 is chosen among the distance's three networks: AlexNet and "
        "SqueezeNet would cost far less.",
        "The sizes of encoder, decoder and memory are chosen too: four halvings to a code of 256 channels at 16 x 16, "
        "500 slots, the nearest 10 of them. Together they are under a tenth of the cost.",
        "256 x 256 is the NDP-Net paper's size.",
        "The trust regions decide which images write to the memory in training; at inspection they do nothing.",
        "The score is the map's largest value.",
    ),
    reported=Reported(image_rocauc=97.74, pixel_rocauc=93.83),
    build=lambda: build_seeded(TrustMae),
    typical_s=1.0,
)

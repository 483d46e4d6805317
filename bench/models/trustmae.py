"""TrustMAE: an autoencoder whose code is put together from memory slots, and a perceptual distance from VGG-16."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_vgg16
from ndp_rt.bench.models.method import Method, chain, fit_map
from ndp_rt.export.models.ndpnet.vgg import TAPPED_LAYERS, ImageNetNormalisation

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
    return chain(CHANNELS, lambda a, b: (nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)))


def make_decoder() -> nn.Sequential:
    """Return the encoder's mirror image, with values from 0 to 1."""
    last = nn.ConvTranspose2d(CHANNELS[1], 3, 4, 2, 1)
    return chain(
        CHANNELS[:0:-1],
        lambda a, b: (nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU()),
        last,
        nn.Sigmoid(),
    )


class TrustMae(Method):
    """Maps the perceptual distance of image and reconstruction, position by position."""

    def __init__(self, input_px: int = INPUT_PX) -> None:
        super().__init__(input_px)
        self.encoder = make_encoder()
        self.memory = Memory()
        self.decoder = make_decoder()
        self.imagenet = ImageNetNormalisation()
        self.vgg = make_vgg16(TAPPED_LAYERS)
        self.weights = nn.ParameterList(torch.rand(1, channels, 1, 1) for channels in TAPPED_CHANNELS)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.measure_distance(x, self.decoder(self.memory(self.encoder(x)))), None

    def measure_distance(self, x: Tensor, rebuilt: Tensor) -> Tensor:
        """Return the weighed squared gaps of unit features, added up over the five maps, [n, 1, h, w]."""
        total = torch.zeros_like(x[:, :1])
        pairs = zip(self.weights, self.vgg(self.imagenet(x)), self.vgg(self.imagenet(rebuilt)), strict=True)
        for weights, p, q in pairs:
            gap = (functional.normalize(p) - functional.normalize(q)).square()
            total = total + fit_map(functional.conv2d(gap, weights), x)
        return total

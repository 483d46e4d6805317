"""GANomaly: encoder, decoder and a second encoder; the score is the gap between the two codes."""

from torch import Tensor, nn

from ndp_rt.bench.models.method import Method, centre_values, chain, measure_gap

INPUT_PX = 256
LATENT_COUNT = 100
FIRST_CHANNELS = 64
CODE_PX = 4  # side of the last feature map


def list_channels() -> list[int]:
    """Return the channels of the feature maps, largest map first: doubled from halving to halving."""
    halvings = (INPUT_PX // CODE_PX).bit_length() - 1
    return [FIRST_CHANNELS * 2**level for level in range(halvings)]


def make_encoder() -> nn.Sequential:
    """Return [n, 3, INPUT_PX, INPUT_PX] to [n, LATENT_COUNT, 1, 1]."""
    channels = list_channels()
    return nn.Sequential(
        nn.Conv2d(3, channels[0], 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2),
        chain(channels, lambda a, b: (nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2))),
        nn.Conv2d(channels[-1], LATENT_COUNT, CODE_PX, bias=False),
    )


def make_decoder() -> nn.Sequential:
    """Return [n, LATENT_COUNT, 1, 1] to [n, 3, INPUT_PX, INPUT_PX], -1 to 1."""
    channels = list_channels()[::-1]
    return nn.Sequential(
        nn.ConvTranspose2d(LATENT_COUNT, channels[0], CODE_PX, bias=False),
        nn.BatchNorm2d(channels[0]),
        nn.ReLU(),
        chain(channels, lambda a, b: (nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())),
        nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


class Ganomaly(Method):
    """Encodes, decodes and encodes again; maps |x - x'|."""

    def __init__(self) -> None:
        super().__init__(INPUT_PX)
        self.normalise = centre_values
        self.encoder = make_encoder()
        self.decoder = make_decoder()
        self.second_encoder = make_encoder()

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        code = self.encoder(x)
        rebuilt = self.decoder(code)
        score = (code - self.second_encoder(rebuilt)).square().mean(dim=(1, 2, 3))
        return measure_gap(x, rebuilt), score

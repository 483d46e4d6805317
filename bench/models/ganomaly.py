"""GANomaly: encoder, decoder and a second encoder; the score is the gap between the two codes."""

from itertools import pairwise

from torch import Tensor, nn

from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.gap import measure_gap
from ndp_rt.bench.models.seeding import build_seeded

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
    layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for c_in, c_out in pairwise(channels):
        layers += [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], LATENT_COUNT, CODE_PX, bias=False))


def make_decoder() -> nn.Sequential:
    """Return [n, LATENT_COUNT, 1, 1] to [n, 3, INPUT_PX, INPUT_PX], -1 to 1."""
    channels = list_channels()[::-1]
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT_COUNT, channels[0], CODE_PX, bias=False)]
    layers += [nn.BatchNorm2d(channels[0]), nn.ReLU()]
    for c_in, c_out in pairwise(channels):
        layers += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1, bias=False), nn.Tanh())


class Ganomaly(nn.Module):
    """Encodes, decodes and encodes again; maps |x - x'|."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = make_encoder()
        self.decoder = make_decoder()
        self.second_encoder = make_encoder()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = 2 * fit_image(image, INPUT_PX) - 1
        code = self.encoder(x)
        rebuilt = self.decoder(code)
        score = (code - self.second_encoder(rebuilt)).square().mean(dim=(1, 2, 3))
        return fit_map(measure_gap(x, rebuilt), image), score


ARCHITECTURE = Architecture(
    name="ganomaly",
    title="GANomaly",
    source="S. Akcay, A. Atapour-Abarghouei, T. P. Breckon: GANomaly: semi-supervised anomaly detection via "
    "adversarial training, ACCV 2018, arXiv:1805.06725",
    input_px=INPUT_PX,
    counted=(
        "Encoder, decoder and second encoder of 4 x 4 convolutions with stride 2, 64 channels at first, doubled from "
        "halving to halving down to 4 x 4, codes of 100 values (the authors' repository samet-akcay/ganomaly, "
        "lib/networks.py and the defaults in options.py).",
        "At 256 x 256, the NDP-Net paper's size and anomalib's default, that makes six halvings, up to 2048 channels "
        "and 144 million weights.",
        "The score is the mean squared gap between the two codes (lib/model.py there).",
    ),
    left_out=(
        "The repository's images have 32 x 32 pixels by default; at 64 x 64 it costs about a 26th.",
        "The method scores images only; its map here is |x - x'|, a mean over colours, of what it reconstructs anyway.",
        "The discriminator takes no part in inspection.",
    ),
    reported=Reported(image_rocauc=76.30),
    build=lambda: build_seeded(Ganomaly),
    typical_s=0.1,
)

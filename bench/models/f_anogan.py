"""f-AnoGAN: an encoder finds the code in one pass, a WGAN's generator and discriminator do the rest."""

from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.gap import measure_gap
from ndp_rt.bench.models.seeding import build_seeded

INPUT_PX = 64
LATENT_COUNT = 128
WIDTH = 64
CODE_PX = 4  # side of the smallest feature map
DOWN = ((WIDTH, 2 * WIDTH), (2 * WIDTH, 4 * WIDTH), (4 * WIDTH, 8 * WIDTH), (8 * WIDTH, 8 * WIDTH))
UP = tuple((c_out, c_in) for c_in, c_out in DOWN[::-1])
KAPPA = 1.0  # weight of the features' gap in the score


class DownBlock(nn.Module):
    """A residual block that halves the side: convolutions at the full side, then a mean over 2 x 2."""

    def __init__(self, c_in: int, c_out: int, *, has_layer_norm: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(make_norm(c_in, has_layer_norm=has_layer_norm) for _ in range(2))
        self.first = nn.Conv2d(c_in, c_in, 3, padding=1, bias=False)
        self.second = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(functional.relu(self.norms[0](x)))
        inner = self.second(functional.relu(self.norms[1](inner)))
        total: Tensor = functional.avg_pool2d(inner, 2) + self.shortcut(functional.avg_pool2d(x, 2))
        return total


class UpBlock(nn.Module):
    """A residual block that doubles the side, by repetition, before its convolutions."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList((nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)))
        self.first = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(double(functional.relu(self.norms[0](x))))
        inner = self.second(functional.relu(self.norms[1](inner)))
        total: Tensor = inner + self.shortcut(double(x))
        return total


def double(x: Tensor) -> Tensor:
    """Repeat every value 2 x 2 times."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def make_norm(channels: int, *, has_layer_norm: bool) -> nn.Module:
    """Return layer normalisation over channels and positions, as the discriminator has it, or batch normalisation."""
    return nn.GroupNorm(1, channels) if has_layer_norm else nn.BatchNorm2d(channels)


def make_down(*, has_layer_norm: bool) -> nn.Sequential:
    """Return what encoder and discriminator share: [n, 3, 64, 64] to [n, 8192]."""
    blocks = [DownBlock(c_in, c_out, has_layer_norm=has_layer_norm) for c_in, c_out in DOWN]
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), *blocks, nn.Flatten())


class FAnogan(nn.Module):
    """Encodes, generates, and takes the discriminator's features of both images; maps |x - G(E(x))|."""

    def __init__(self) -> None:
        super().__init__()
        feature_count = 8 * WIDTH * CODE_PX**2
        self.encoder = nn.Sequential(make_down(has_layer_norm=False), nn.Linear(feature_count, LATENT_COUNT))
        self.generator = nn.Sequential(
            nn.Linear(LATENT_COUNT, feature_count),
            nn.Unflatten(1, (8 * WIDTH, CODE_PX, CODE_PX)),
            *(UpBlock(c_in, c_out) for c_in, c_out in UP),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
            nn.Tanh(),
        )
        self.features = make_down(has_layer_norm=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = 2 * fit_image(image, INPUT_PX) - 1
        rebuilt = self.generator(self.encoder(x))
        image_gap = (x - rebuilt).square().mean(dim=(1, 2, 3))
        feature_gap = (self.features(x) - self.features(rebuilt)).square().mean(dim=1)
        return fit_map(measure_gap(x, rebuilt), image), image_gap + KAPPA * feature_gap


ARCHITECTURE = Architecture(
    name="f-anogan",
    title="f-AnoGAN",
    source="T. Schlegl, P. Seeböck, S. M. Waldstein, G. Langs, U. Schmidt-Erfurth: f-AnoGAN: fast unsupervised anomaly "
    "detection with generative adversarial networks, Medical Image Analysis 54, 2019",
    input_px=INPUT_PX,
    counted=(
        "Encoder, generator and discriminator of four residual blocks each, of 64 to 512 channels, at 64 x 64, with "
        "a code of 128 values (the authors' repository tSchlegl/f-AnoGAN, wgangp_64x64.py and z_encoding_izif.py).",
        "Convolutions before the mean over 2 x 2 and after the doubling, so at the larger side (same files).",
        "The discriminator's features of the image and of its reconstruction, for the score with kappa = 1 "
        "(anomaly_detection.py there, and kappa's default in z_encoding_izif.py).",
    ),
    left_out=(
        "The source takes images of 64 x 64; here the whole image is scaled to that. 256 x 256 as 16 patches of that "
        "size would cost 16 times as much, and the NDP-Net paper calls the method far faster than its own.",
        "Three colours go in and out, where the source has grey images.",
        "The discriminator's last layer, one value, is not needed for its features; nor is the code of the "
        "reconstruction, a second pass of the encoder, which anomaly_detection.py writes beside the score.",
    ),
    reported=Reported(image_rocauc=63.01),
    build=lambda: build_seeded(FAnogan),
    typical_s=0.1,
)

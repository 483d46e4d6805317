"""f-AnoGAN: an encoder finds the code in one pass, a WGAN's generator and discriminator do the rest."""

from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.method import Method, centre_values, measure_gap

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


class FAnogan(Method):
    """Encodes, generates, and takes the discriminator's features of both images; maps |x - G(E(x))|."""

    def __init__(self) -> None:
        super().__init__(INPUT_PX)
        self.normalise = centre_values
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

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        rebuilt = self.generator(self.encoder(x))
        image_gap = (x - rebuilt).square().mean(dim=(1, 2, 3))
        feature_gap = (self.features(x) - self.features(rebuilt)).square().mean(dim=1)
        return measure_gap(x, rebuilt), image_gap + KAPPA * feature_gap

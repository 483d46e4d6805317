"""AnoGAN: gradient steps on the code until the generator's image resembles the one inspected."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.method import Method, centre_values, chain, measure_gap

INPUT_PX = 64
LATENT_COUNT = 100
CHANNELS = (512, 256, 128, 64)  # from the code outwards
CODE_PX = 4  # side of the smallest feature map
FEATURE_SHARE = 0.1  # lambda
STEP_COUNT = 500
RATE = 0.01


def make_doubling(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles the side."""
    return nn.ConvTranspose2d(c_in, c_out, 5, 2, 2, output_padding=1)


class Generator(nn.Module):
    """DCGAN's, [n, LATENT_COUNT] to [n, 3, INPUT_PX, INPUT_PX], -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(LATENT_COUNT, CHANNELS[0] * CODE_PX**2)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(CHANNELS[0]),
            nn.ReLU(),
            chain(CHANNELS, lambda a, b: (make_doubling(a, b), nn.BatchNorm2d(b), nn.ReLU())),
            make_doubling(CHANNELS[-1], 3),
            nn.Tanh(),
        )

    def forward(self, code: Tensor) -> Tensor:
        x: Tensor = self.layers(self.project(code).unflatten(1, (CHANNELS[0], CODE_PX, CODE_PX)))
        return x


def make_features() -> nn.Sequential:
    """Return DCGAN's discriminator up to its last convolution, [n, 3, INPUT_PX, INPUT_PX] to [n, 512, 4, 4]."""
    first = nn.Sequential(nn.Conv2d(3, CHANNELS[-1], 5, 2, 2), nn.LeakyReLU(0.2))
    return first.extend(
        chain(CHANNELS[::-1], lambda a, b: (nn.Conv2d(a, b, 5, 2, 2), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)))
    )


class Anogan(Method):
    """Searches the code with Adam and maps |x - G(z)|; its own gradients work under a caller's inference mode."""

    start: Tensor

    def __init__(self) -> None:
        super().__init__(INPUT_PX)
        self.normalise = centre_values
        self.step_count = STEP_COUNT
        self.generator = Generator()
        self.features = make_features()
        self.register_buffer("start", torch.rand(1, LATENT_COUNT) * 2 - 1)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone()  # a tensor made in inference mode takes no part in gradients
            rebuilt, score = self.search(x)
        return measure_gap(x, rebuilt), score

    def search(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return G(z) and the loss [n] after the last step."""
        wanted = self.features(x)
        code = self.start.repeat(x.shape[0], 1).requires_grad_()
        optimiser = torch.optim.Adam([code], lr=RATE)
        for _ in range(self.step_count):
            optimiser.zero_grad()
            _, loss = self.compare(code, x, wanted)
            # Images share no weights that move, so their losses' sum serves each alone.
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            return self.compare(code, x, wanted)

    def compare(self, code: Tensor, x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Return G(z) and (1 - lambda) * residual loss + lambda * feature loss, sums of absolute gaps [n]."""
        rebuilt = self.generator(code)
        residual = functional.l1_loss(rebuilt, x, reduction="none").sum(dim=(1, 2, 3))
        feature = functional.l1_loss(self.features(rebuilt), wanted, reduction="none").sum(dim=(1, 2, 3))
        return rebuilt, (1 - FEATURE_SHARE) * residual + FEATURE_SHARE * feature

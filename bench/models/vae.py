"""VAE: a variational autoencoder that reconstructs the whole image once, compared with it pixel by pixel."""

from torch import Tensor

from ndp_rt.bench.models.ae_ssim import make_decoder, make_encoder
from ndp_rt.bench.models.method import Method, measure_gap

INPUT_PX = 256
LATENT_COUNT = 100


class Vae(Method):
    """Decodes the mean of the code's distribution and maps |x - x'|."""

    def __init__(self) -> None:
        super().__init__(INPUT_PX)
        # The last layer yields the code's mean and log-variance.
        self.encoder = make_encoder(2 * LATENT_COUNT, extra_count=1)
        self.decoder = make_decoder(LATENT_COUNT, extra_count=1)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        mean, _log_variance = self.encoder(x).chunk(2, dim=1)
        return measure_gap(x, self.decoder(mean)), None

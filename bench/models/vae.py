"""VAE: a variational autoencoder that reconstructs the whole image once, compared with it pixel by pixel."""

from torch import Tensor, nn

from ndp_rt.bench.models.ae_ssim import make_decoder, make_encoder
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.gap import measure_gap
from ndp_rt.bench.models.seeding import build_seeded

INPUT_PX = 256
LATENT_COUNT = 100


class Vae(nn.Module):
    """Decodes the mean of the code's distribution and maps |x - x'|."""

    def __init__(self) -> None:
        super().__init__()
        # The last layer yields the code's mean and log-variance.
        self.encoder = make_encoder(2 * LATENT_COUNT, extra_count=1)
        self.decoder = make_decoder(LATENT_COUNT, extra_count=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = fit_image(image, INPUT_PX)
        mean, _log_variance = self.encoder(x).chunk(2, dim=1)
        gap = measure_gap(x, self.decoder(mean))
        return fit_map(gap, image), gap.amax(dim=(1, 2, 3))


ARCHITECTURE = Architecture(
    name="vae",
    title="VAE",
    source="D. Dehaene, O. Frigo, S. Combrexelle, P. Eline: Iterative energy-based projection on a normal data "
    "manifold for anomaly localization, ICLR 2020, arXiv:2002.03734; the baseline VAE",
    input_px=INPUT_PX,
    counted=(
        "One pass of encoder and decoder over an image of 256 x 256, the NDP-Net paper's size (its section IV-A).",
        "AE-SSIM's convolutions with one more, as MVTec AD's authors use them for whole images of 256 x 256 (P. "
        "Bergmann et al., CVPR 2019, section 4.1.2), in three colours, down to a mean and a log-variance of 100 values "
        "each.",
        "The gap |x - x'| at every pixel, a mean over colours.",
    ),
    left_out=(
        "The cited paper's projection, gradient steps on the input until it converges, is left out: the NDP-Net paper "
        "calls VAE faster than itself, and every step costs about two passes. It does not say which of the two has "
        "the accuracy that it reports.",
        "The layers, the one more among them, and the code's width are from AE-SSIM's sources; we did not have the "
        "cited paper's own list.",
        "Patches of 128 x 128 every 30 px, as for AE-SSIM, would cost about 15 times as much.",
        "The code is its distribution's mean, with nothing drawn at random; the score is the map's largest value.",
    ),
    reported=Reported(image_rocauc=78.20, pixel_rocauc=82.26, pro_auc=57.16),
    build=lambda: build_seeded(Vae),
    typical_s=0.01,
)

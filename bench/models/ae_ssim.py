"""AE-SSIM: a convolutional autoencoder on overlapping patches, compared with the image by structural similarity."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.method import Method

INPUT_PX = 256
PATCH_PX = 128
STRIDE_PX = 30
LATENT_COUNT = 100
WINDOW_PX = 11
C1, C2 = 0.01**2, 0.03**2  # squared as in scikit-image, for values in [0, 1]


def list_offsets(side_px: int) -> tuple[int, ...]:
    """Return where patches begin along a side: every STRIDE_PX, and one that ends with the image."""
    last = side_px - PATCH_PX
    return (*range(0, last, STRIDE_PX), last)


def make_encoder(latent_count: int, *, colour_count: int = 3, extra_count: int = 0) -> nn.Sequential:
    """Return nine convolutions, patch [n, colour_count, PATCH_PX, PATCH_PX] to [n, latent_count, 1, 1].

    Args:
        latent_count: width of the code.
        colour_count: of the patch.
        extra_count: further halvings of the side after the first two; 1 takes 256 px, as MVTec AD's authors do for
            objects.
    """
    halvings = [(32, 32, 4, 2)] * extra_count
    table = [(colour_count, 32, 4, 2), (32, 32, 4, 2), *halvings, (32, 32, 3, 1), (32, 64, 4, 2), (64, 64, 3, 1)]
    table += [(64, 128, 4, 2), (128, 64, 3, 1), (64, 32, 3, 1)]
    layers: list[nn.Module] = []
    for c_in, c_out, kernel_px, stride_px in table:
        layers += [nn.Conv2d(c_in, c_out, kernel_px, stride_px, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(32, latent_count, 8))


def make_decoder(latent_count: int, *, colour_count: int = 3, extra_count: int = 0) -> nn.Sequential:
    """Return the encoder's mirror image, [n, latent_count, 1, 1] to patch; arguments as for `make_encoder`."""
    doublings = [(32, 32, 4, 2)] * extra_count
    table = [(32, 64, 3, 1), (64, 128, 3, 1), (128, 64, 4, 2), (64, 64, 3, 1), (64, 32, 4, 2), (32, 32, 3, 1)]
    table += [*doublings, (32, 32, 4, 2)]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent_count, 32, 8), nn.LeakyReLU(0.2)]
    for c_in, c_out, kernel_px, stride_px in table:
        kind = nn.ConvTranspose2d if stride_px == 2 else nn.Conv2d
        layers += [kind(c_in, c_out, kernel_px, stride_px, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, colour_count, 4, 2, padding=1), nn.Sigmoid())


class AeSsim(Method):
    """Reconstructs every patch of the grey image, averages where they overlap, and maps 1 - SSIM."""

    def __init__(self) -> None:
        super().__init__(INPUT_PX)
        self.encoder = make_encoder(LATENT_COUNT, colour_count=1)
        self.decoder = make_decoder(LATENT_COUNT, colour_count=1)
        offsets = list_offsets(INPUT_PX)
        self.corners = [(top, left) for top in offsets for left in offsets]

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        grey = x.mean(dim=1, keepdim=True)
        return 1 - measure_ssim(grey, self.rebuild(grey)), None

    def rebuild(self, x: Tensor) -> Tensor:
        """Return the mean of the patches' reconstructions, [n, 1, INPUT_PX, INPUT_PX]."""
        patches = [x[:, :, top : top + PATCH_PX, left : left + PATCH_PX] for top, left in self.corners]
        rebuilt = self.decoder(self.encoder(torch.cat(patches))).chunk(len(self.corners))
        total, count = torch.zeros_like(x), torch.zeros_like(x[:1])
        for (top, left), patch in zip(self.corners, rebuilt, strict=True):
            total[:, :, top : top + PATCH_PX, left : left + PATCH_PX] += patch
            count[:, :, top : top + PATCH_PX, left : left + PATCH_PX] += 1
        return total / count


def measure_ssim(p: Tensor, q: Tensor) -> Tensor:
    """Return the structural similarity (the paper's eq. 8) of two images at every pixel and colour, [n, c, h, w]."""

    def average(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, WINDOW_PX, 1, WINDOW_PX // 2, count_include_pad=False)

    mean_p, mean_q = average(p), average(q)
    square_p, square_q, product = mean_p * mean_p, mean_q * mean_q, mean_p * mean_q
    variance_p, variance_q = average(p * p) - square_p, average(q * q) - square_q
    covariance = average(p * q) - product
    upper = (2 * product + C1) * (2 * covariance + C2)
    return upper / ((square_p + square_q + C1) * (variance_p + variance_q + C2))

"""RIAD: a U-Net inpaints the image region by region; gradient magnitudes of image and result are compared."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.banks import GaussianSmoothing
from ndp_rt.bench.models.method import Method, centre_values, fit_map

INPUT_PX = 256
REGION_SIDES_PX = (2, 4, 8, 16)
SET_COUNT = 3  # disjoint sets of regions that cover the image
SCALE_COUNT = 4
SIGMA_PX = 7.0
C = 0.0026  # keeps the similarity of flat regions defined
DOWN = ((3, 64, 3, 1), (64, 128, 4, 2), (128, 256, 4, 2), (256, 512, 4, 2), (512, 512, 4, 2))
UP = ((512, 512), (512, 256), (256, 128), (128, 64))


def make_convolution(c_in: int, c_out: int, kernel_px: int = 3, stride_px: int = 1) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel_px, stride_px, padding=1), nn.BatchNorm2d(c_out), nn.ReLU())


class UNet(nn.Module):
    """[n, 3, h, w] to the same, -1 to 1; h and w are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(make_convolution(c_in, c_out, kernel_px, stride_px), make_convolution(c_out, c_out))
            for c_in, c_out, kernel_px, stride_px in DOWN
        )
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(c_in, c_out, 4, 2, padding=1) for c_in, c_out in UP)
        self.up = nn.ModuleList(
            nn.Sequential(make_convolution(2 * c_out, c_out), make_convolution(c_out, c_out)) for _, c_out in UP
        )
        self.last = nn.Conv2d(UP[-1][1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for block in self.down:
            x = block(x)
            skipped.append(x)
        for enlarge, block, around in zip(self.enlarge, self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat((enlarge(x), around), dim=1))
        return torch.tanh(self.last(x))


class Riad(Method):
    """Maps the mean over region sides of 1 - the multi-scale gradient magnitude similarity, smoothed."""

    masks: Tensor
    filters: Tensor

    def __init__(self, input_px: int = INPUT_PX) -> None:
        super().__init__(input_px)
        self.normalise = centre_values
        self.unet = UNet()
        self.smooth = GaussianSmoothing(SIGMA_PX)
        # A mask [SET_COUNT, 1, input_px, input_px] for each side; 1: the region is taken out and inpainted.
        self.register_buffer("masks", torch.stack([draw_masks(side_px, input_px) for side_px in REGION_SIDES_PX]))
        row = torch.tensor([-1.0, 0.0, 1.0]) / 3
        self.register_buffer("filters", torch.stack([row.repeat(3, 1), row.repeat(3, 1).T]).unsqueeze(1))  # Prewitt's

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        maps = [1 - self.measure_similarity(x, self.inpaint(x, masks)) for masks in self.masks.unbind()]
        return self.smooth(torch.stack(maps).mean(dim=0)), None

    def inpaint(self, x: Tensor, masks: Tensor) -> Tensor:
        """Return the image put together from what the network makes of the regions of each set, like `x`."""
        rebuilt = torch.zeros_like(x)
        for mask in masks.unbind():
            rebuilt = rebuilt + self.unet(x * (1 - mask)) * mask
        return rebuilt

    def measure_similarity(self, x: Tensor, rebuilt: Tensor) -> Tensor:
        """Return the mean over SCALE_COUNT scales of the similarity of gradient magnitudes, [n, 1, h, w]."""
        p, q = x.mean(dim=1, keepdim=True), rebuilt.mean(dim=1, keepdim=True)
        total = torch.zeros_like(p)
        for scale in range(SCALE_COUNT):
            if scale:
                p, q = functional.avg_pool2d(p, 2), functional.avg_pool2d(q, 2)
            gradient_p, gradient_q = self.measure_gradient(p), self.measure_gradient(q)
            similarity = (2 * gradient_p * gradient_q + C) / (gradient_p.square() + gradient_q.square() + C)
            total = total + fit_map(similarity, x)
        return total / SCALE_COUNT

    def measure_gradient(self, grey: Tensor) -> Tensor:
        """Return the gradient's magnitude, [n, 1, h, w]."""
        return functional.conv2d(grey, self.filters, padding=1).square().sum(dim=1, keepdim=True).sqrt()


def draw_masks(side_px: int, input_px: int) -> Tensor:
    """Deal the regions of a grid out to SET_COUNT sets at random; [SET_COUNT, 1, input_px, input_px], 0 or 1."""
    count = input_px // side_px
    sets = (torch.randperm(count * count) % SET_COUNT).view(count, count)
    grid = functional.one_hot(sets, SET_COUNT).permute(2, 0, 1).unsqueeze(1).float()
    return grid.repeat_interleave(side_px, dim=2).repeat_interleave(side_px, dim=3)

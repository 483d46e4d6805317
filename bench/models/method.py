"""What the inspection methods share: from a caller's image to the network's square, and from its map back.

The methods are for time, not for accuracy: weights, memory banks and reference images are random numbers of the real
sizes. What a method computes for one image at inspection, it computes here too; training is left out.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

CROP_FROM_PX, CROP_PX = 256, 224  # of the methods whose repositories cut the square's centre out


class Method(nn.Module):
    """Images float32 [n, 3, h, w], 0 to 1, to (maps float32 [n, 1, h, w], scores float32 [n]); h, w and n are any.

    A subclass says what its network makes of the square in `inspect`, and how it takes its values in `normalise`.
    """

    def __init__(self, input_px: int, crop_px: int | None = None) -> None:
        """Take the side of the square that images are resized to, and of its centre that the network sees."""
        super().__init__()
        self.input_px, self.crop_px = input_px, crop_px
        self.normalise: Callable[[Tensor], Tensor] = lambda x: x

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return maps [n, 1, h', w'] of the square, and scores [n]; None: the maps' largest values."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores, score = self.inspect(self.normalise(fit_image(image, self.input_px, self.crop_px)))
        border_px = 0 if self.crop_px is None else (self.input_px - self.crop_px) // 2
        return fit_map(scores, image, border_px), scores.amax((1, 2, 3)) if score is None else score


def chain(channels: Sequence[int], make: Callable[[int, int], Sequence[nn.Module]], *last: nn.Module) -> nn.Sequential:
    """Return what `make` returns for each count of channels and the next one, in a row, and then the last layers."""
    return nn.Sequential(*(layer for c_in, c_out in pairwise(channels) for layer in make(c_in, c_out)), *last)


def chain_points(channels: Sequence[int], is_plain: Callable[[int], bool]) -> nn.Sequential:
    """Return 1x1 convolutions from count to count of channels, batch norm and ReLU after each but the plain ones.

    Args:
        channels: from the first's to the last's.
        is_plain: tells it by the channels that a convolution gives.
    """

    def make(c_in: int, c_out: int) -> list[nn.Module]:
        after = [] if is_plain(c_out) else [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        return [nn.Conv2d(c_in, c_out, 1), *after]

    return chain(channels, make)


def centre_values(x: Tensor) -> Tensor:
    """Return images in 0 to 1 as values from -1 to 1."""
    return 2 * x - 1


def measure_gap(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Return the mean over colours of |image - rebuilt|, [n, 1, h, w]."""
    return (image - rebuilt).abs().mean(dim=1, keepdim=True)


def fit_image(image: Tensor, side_px: int, crop_px: int | None = None) -> Tensor:
    """Resize images [n, 3, h, w] to a square, bilinear, and cut out its centre [n, 3, crop_px, crop_px]; None: all."""
    square = functional.interpolate(image, size=(side_px, side_px), mode="bilinear", align_corners=False)
    if crop_px is None:
        return square
    start = (side_px - crop_px) // 2
    return square[:, :, start : start + crop_px, start : start + crop_px]


def fit_map(scores: Tensor, image: Tensor, border_px: int = 0) -> Tensor:
    """Resize maps [n, 1, h', w'] to their images' h and w, bilinear, once the border that a crop cut off is back.

    Args:
        scores: of the network's square.
        image: whose height and width are wanted.
        border_px: the width of the border, in the map's pixels; it repeats the map's edge.
    """
    whole = functional.pad(scores, (border_px,) * 4, mode="replicate") if border_px else scores
    h, w = image.shape[-2:]
    return functional.interpolate(whole, size=(h, w), mode="bilinear", align_corners=False)


def build_seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what `make` returns, drawn with seed 0, in eval mode, none of its parameters to be trained.

    The variance of a layer's weights is 2 over the count of products that one of its values sums: values keep their
    size through however many layers, so that a map depends on all of them. PyTorch's own generator stays as it was.
    """
    # Weights made in a caller's inference mode would take no part in gradients.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.normal_(module.weight, std=(2.0 / count_products(module)) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model.eval().requires_grad_(False)


def count_products(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    """Return how many products a value of a layer sums, away from the borders."""
    if isinstance(layer, nn.ConvTranspose2d):
        # Stride s leaves a value every s-th tap in both directions. Those of stride 1 here get maps of 1 x 1: one tap.
        stride = layer.stride[0]
        return layer.in_channels * (layer.weight[0, 0].numel() / stride**2 if stride > 1 else 1.0)
    return float(layer.weight[0].numel())

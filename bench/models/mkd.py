"""MKD: a small network is taught VGG-16's features at three depths; the difference's gradient is the map."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_vgg16
from ndp_rt.bench.models.banks import GaussianSmoothing
from ndp_rt.bench.models.method import Method

INPUT_PX = 224
TAPS = (16, 23, 30)  # the last three poolings
CLONER_PLAN = (16, 16, "M", 16, 128, "M", 16, 16, 256, "M", 16, 16, 512, "M", 16, 16, 512, "M")
DISTANCE_SHARE = 0.5  # lambda for MVTec AD


class Cloner(nn.Module):
    """The student: its maps after the last three poolings have the teacher's shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        layers: list[nn.Module] = []
        c_in = 3
        for entry, following in zip(CLONER_PLAN, (*CLONER_PLAN[1:], None), strict=True):
            if isinstance(entry, int):
                normalisation = [] if following == "M" else [nn.BatchNorm2d(entry)]
                layers += [nn.Conv2d(c_in, entry, 3, padding=1, bias=False), *normalisation, nn.ReLU(inplace=True)]
                c_in = entry
            else:
                self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
                layers = []

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps[-len(TAPS) :]


def open_morphologically(scores: Tensor) -> Tensor:
    """Return maps [n, 1, h, w] after erosion and dilation with a cross of 3x3 pixels."""

    def dilate(one: Tensor) -> Tensor:
        rows = functional.max_pool2d(one, (3, 1), 1, (1, 0))
        return torch.maximum(rows, functional.max_pool2d(one, (1, 3), 1, (0, 1)))

    return dilate(-dilate(-scores))


class Mkd(Method):
    """Teacher, student, and backpropagation of their difference to the image."""

    def __init__(self, *, input_px: int = INPUT_PX) -> None:
        super().__init__(input_px)
        self.teacher = make_vgg16(TAPS)
        self.student = Cloner()
        self.smooth = GaussianSmoothing()

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone().detach().requires_grad_()
            losses = self.measure_losses(x)
            torch.autograd.backward(losses.sum())  # to the image alone; its loss depends on no other image
        gradient = x.grad
        assert gradient is not None
        grey = gradient.abs().sum(1, keepdim=True)
        low = grey.amin((2, 3), keepdim=True)
        high = grey.flatten(1).quantile(0.99, dim=1).view(-1, 1, 1, 1)
        return open_morphologically(self.smooth(((grey - low) / (high - low)).clamp(0.0, 1.0))), losses.detach()

    def measure_losses(self, x: Tensor) -> Tensor:
        """Return the images' losses [n]: direction and, at half weight, distance of the features at three depths."""
        losses = x.new_zeros(x.shape[0])
        for wanted, got in zip(self.teacher(x), self.student(x), strict=True):
            wanted, got = wanted.flatten(1), got.flatten(1)
            distance = (wanted - got).square().mean(1)
            losses = losses + 1.0 - functional.cosine_similarity(wanted, got) + DISTANCE_SHARE * distance
        return losses

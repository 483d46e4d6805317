"""ResNet18's convolutions in plain PyTorch (He et al. 2016, arXiv 1512.03385)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.export.features.backbone import Backbone

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHANNELS = {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}  # by stride


def _convolve(c_in: int, c_out: int, kernel: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(c_out)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, added to their input or to its 1 x 1 projection."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolve(c_in, c_out, 3, stride), nn.ReLU(), *_convolve(c_out, c_out, 3))
        projects = stride > 1 or c_in != c_out
        self.shortcut = nn.Sequential(*_convolve(c_in, c_out, 1, stride)) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet18(Backbone):
    """The network up to a stride.

    Args:
        strides: of the features that `forward` returns, rising, out of CHANNELS; deeper layers are left out.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, strides: tuple[int, ...] = (2, 4, 8, 16)) -> None:
        super().__init__()
        self.strides = strides
        self.channels = tuple(CHANNELS[stride] for stride in strides)
        self.stem = nn.Sequential(*_convolve(3, CHANNELS[2], 7, 2), nn.ReLU())
        self.layers = nn.ModuleDict()
        c_in = CHANNELS[2]
        for stride, c_out in CHANNELS.items():
            if 2 < stride <= strides[-1]:
                blocks = BasicBlock(c_in, c_out, 1 if stride == 4 else 2), BasicBlock(c_out, c_out, 1)
                self.layers[str(stride)] = nn.Sequential(*blocks)
                c_in = c_out
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features [n, c, h/s, w/s] of each stride s, of images [n, 3, h, w] from 0 to 1."""
        x = self.stem((image - self.mean) / self.std)
        found = {2: x}
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for name, layer in self.layers.items():
            x = layer(x)
            found[int(name)] = x
        return tuple(found[stride] for stride in self.strides)

    def take_blocks(self, stride: int) -> nn.Module:
        return self.layers[str(stride)]


def translate_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of torchvision's resnet18 under this module's names; those of the classes are left out."""
    renamed: dict[str, Tensor] = {}
    places = {"conv1": "body.0", "bn1": "body.1", "conv2": "body.3", "bn2": "body.4", "downsample": "shortcut"}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        if first in ("conv1", "bn1"):
            renamed[f"stem.{0 if first == 'conv1' else 1}.{rest}"] = tensor
        elif first.startswith("layer"):
            block, part, parameter = rest.split(".", 2)
            stride = 2 ** (1 + int(first.removeprefix("layer")))
            renamed[f"layers.{stride}.{block}.{places.get(part, part)}.{parameter}"] = tensor
    return renamed

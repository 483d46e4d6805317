"""VGG-16's feature maps for the perceptual loss (eq. 13, 16), with weights from a file that the user gives."""

from collections.abc import Sequence
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.errors import InputError

# torchvision's vgg16().features: channels of each convolution, "M" for max pooling.
PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
# **Choice**: the paper says five ReLU maps; these are relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3.
TAPPED_LAYERS = (3, 8, 15, 22, 29)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageNetNormalisation(nn.Module):
    """Subtracts ImageNet's mean from images [n, 3, h, w] in 0 to 1 and divides by its standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class VGG(nn.Module):
    """The convolutions of a VGG up to the last of `taps`; the maps after the layers of these torchvision numbers."""

    def __init__(self, plan: Sequence[int | str], taps: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in = 3
        for entry in plan:
            if isinstance(entry, int):
                layers += [nn.Conv2d(c_in, entry, 3, padding=1), nn.ReLU(inplace=True)]
                c_in = entry
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[: max(taps) + 1])
        self.taps = frozenset(taps)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


class VGGFeatures(VGG):
    """The five ReLU maps of VGG-16, [n, 64 .. 512, h .. h/16, w .. w/16], of images from 0 to 1; never trained."""

    def __init__(self) -> None:
        super().__init__(PLAN, TAPPED_LAYERS)
        self.normalise = ImageNetNormalisation()

    def forward(self, x: Tensor) -> list[Tensor]:
        return super().forward(self.normalise(x))

    def loss(self, rebuilt: Tensor, good: Tensor) -> Tensor:
        """Return the L1 distance of the five maps of two images [n, 3, h, w], the mean of the maps' means (eq. 13)."""
        with torch.no_grad():
            wanted = self(good)
        errors = [functional.l1_loss(r.float(), g.float()) for r, g in zip(self(rebuilt), wanted, strict=True)]
        return torch.stack(errors).mean()


def load_vgg(path: Path) -> VGGFeatures:
    """Return VGG-16's features with the weights of a safetensors file that has torchvision's names.

    Raises:
        InputError: the file is missing, no safetensors file, or lacks a tensor.
    """
    expected = "expected a safetensors file with torchvision's vgg16 names (features.0.weight to features.28.bias)"
    try:
        tensors = load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"--vgg {path}: {expected}, got {error}. Give one, or leave --vgg out.") from error
    model = VGGFeatures()
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise InputError(f"--vgg {path}: {expected}, got none of {', '.join(missing[:3])} ({len(missing)} missing).")
    wrong = [name for name in wanted if tensors[name].shape != wanted[name].shape]
    if wrong:
        shapes = [list(one[wrong[0]].shape) for one in (wanted, tensors)]
        raise InputError(f"--vgg {path}: expected {wrong[0]} {shapes[0]}, got {shapes[1]}. Give VGG-16's weights.")
    model.load_state_dict({name: tensors[name].float() for name in wanted})
    return model.eval().requires_grad_(False)

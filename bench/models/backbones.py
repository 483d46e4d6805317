"""Feature extractors of the reference architectures: ResNet and VGG, with torchvision's names for their weights.

Weights are random here. A state dict of torchvision's fits all the same, once what a page leaves out (`fc`, the stages
after its last tap) is dropped from it. torchvision itself is no dependency: its wheels ask for PyTorch with CUDA.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ndp_rt.export.models.ndpnet.vgg import PLAN as VGG16_PLAN

VGG19_PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")
# Random residuals as large as what they are added to would make features grow a hundredfold from stage to stage.
RESIDUAL_WEIGHT = 0.2


def make_shortcut(c_in: int, c_out: int, stride: int) -> nn.Module | None:
    """Return what a block's input passes on its way round the block; None: nothing."""
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, of ResNet-18 and ResNet-34."""

    expansion = 1

    def __init__(self, c_in: int, planes: int, stride: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        nn.init.constant_(self.bn2.weight, RESIDUAL_WEIGHT)
        self.downsample = make_shortcut(c_in, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(x)) + around)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, of ResNet-50 (`width` 64) and WideResNet-50-2 (`width` 128)."""

    expansion = 4

    def __init__(self, c_in: int, planes: int, stride: int, width: int) -> None:
        super().__init__()
        inner, c_out = planes * width // 64, planes * self.expansion
        self.conv1 = nn.Conv2d(c_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        nn.init.constant_(self.bn3.weight, RESIDUAL_WEIGHT)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + around)
        return out


class ResNet(nn.Module):
    """Stages `layer1` to `layer4` of a ResNet, or the first of them; the map after each, from 1/4 of the side down."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], block_counts: Sequence[int], *, stages: int, width: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage_names = tuple(f"layer{stage + 1}" for stage in range(stages))
        self.channels: list[int] = []  # of the maps
        c_in = 64
        for stage, name in enumerate(self.stage_names):
            planes = 64 << stage
            blocks: list[nn.Module] = []
            for index in range(block_counts[stage]):
                blocks.append(block(c_in, planes, 2 if stage and not index else 1, width))
                c_in = planes * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
            self.channels.append(c_in)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


def make_resnet18(stages: int = 4) -> ResNet:
    """Return ResNet-18 without its classifier, up to a stage."""
    return ResNet(BasicBlock, (2, 2, 2, 2), stages=stages)


def make_resnet34(stages: int = 4) -> ResNet:
    """Return ResNet-34 without its classifier, up to a stage."""
    return ResNet(BasicBlock, (3, 4, 6, 3), stages=stages)


def make_resnet50(stages: int = 4) -> ResNet:
    """Return ResNet-50 without its classifier, up to a stage."""
    return ResNet(Bottleneck, (3, 4, 6, 3), stages=stages)


def make_wide_resnet50_2(stages: int = 4) -> ResNet:
    """Return WideResNet-50-2 without its classifier, up to a stage."""
    return ResNet(Bottleneck, (3, 4, 6, 3), stages=stages, width=128)


class VGG(nn.Module):
    """The convolutions of a VGG up to the last tap; the maps after the layers of `taps`, by torchvision's numbers.

    `export/vgg.py` fixes VGG-16, its five taps and the normalisation for the perceptual loss; the methods here tap
    other layers of VGG-16 and VGG-19, some without the normalisation.
    """

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


def make_vgg16(taps: Sequence[int]) -> VGG:
    """Return VGG-16's convolutions with these taps."""
    return VGG(VGG16_PLAN, taps)


def make_vgg19(taps: Sequence[int]) -> VGG:
    """Return VGG-19's convolutions with these taps."""
    return VGG(VGG19_PLAN, taps)

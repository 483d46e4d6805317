"""Feature extractors of the reference architectures: ResNet and VGG, with torchvision's names for their weights.

Weights are random here. A state dict of torchvision's fits all the same, once what a page leaves out (`fc`, the stages
after its last tap) is dropped from it. torchvision itself is no dependency: its wheels ask for PyTorch with CUDA.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ndp_rt.export.models.ndpnet.vgg import PLAN as VGG16_PLAN
from ndp_rt.export.models.ndpnet.vgg import VGG

VGG19_PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")
# Random residuals as large as what they are added to would make features grow a hundredfold from stage to stage.
RESIDUAL_WEIGHT = 0.2


class Block(nn.Module):
    """Convolutions without bias, each normalised, and the block's input around them.

    3 x 3 and 3 x 3 (ResNet-18 and 34), or 1 x 1, 3 x 3 and 1 x 1 (ResNet-50 and WideResNet-50-2); the first 3 x 3 one
    has the stride.
    """

    def __init__(self, c_in: int, counts: Sequence[int], stride: int) -> None:
        super().__init__()
        self.count = len(counts)
        kernels, strides = ((3, 3), (stride, 1)) if self.count == 2 else ((1, 3, 1), (1, stride, 1))
        channels = (c_in, *counts)
        for number, (kernel_px, step) in enumerate(zip(kernels, strides, strict=True), 1):
            before, after = channels[number - 1], channels[number]
            convolution = nn.Conv2d(before, after, kernel_px, step, kernel_px // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        nn.init.constant_(self.get_submodule(f"bn{self.count}").weight, RESIDUAL_WEIGHT)  # type: ignore[arg-type]
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != counts[-1]:
            around = nn.Conv2d(c_in, counts[-1], 1, stride, bias=False)
            self.downsample = nn.Sequential(around, nn.BatchNorm2d(counts[-1]))

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.count + 1):
            x = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x))
            x = self.relu(x if number < self.count else x + around)
        return x


class ResNet(nn.Module):
    """Stages `layer1` to `layer4` of a ResNet, or the first of them; the map after each, from 1/4 of the side down."""

    def __init__(self, block_counts: Sequence[int], width: int = 0, stages: int = 4) -> None:
        """Take the blocks of each stage, and the bottlenecks' width (of 64 in the first stage); 0: there are none."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage_names = tuple(f"layer{stage + 1}" for stage in range(stages))
        self.channels: list[int] = []  # of the maps
        c_in = 64
        for stage, name in enumerate(self.stage_names):
            planes, inner = 64 << stage, width << stage
            counts = (inner, inner, 4 * planes) if width else (planes, planes)
            blocks: list[nn.Module] = []
            for index in range(block_counts[stage]):
                blocks.append(Block(c_in, counts, 2 if stage and not index else 1))
                c_in = counts[-1]
            self.add_module(name, nn.Sequential(*blocks))
            self.channels.append(c_in)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


# Without their classifiers; those of ResNets up to `stages`, those of VGGs up to the last of `taps`.
make_resnet18 = partial(ResNet, (2, 2, 2, 2))
make_resnet34 = partial(ResNet, (3, 4, 6, 3))
make_resnet50 = partial(ResNet, (3, 4, 6, 3), 64)
make_wide_resnet50_2 = partial(ResNet, (3, 4, 6, 3), 128)
make_vgg16 = partial(VGG, VGG16_PLAN)
make_vgg19 = partial(VGG, VGG19_PLAN)

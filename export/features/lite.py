"""EfficientNet-Lite0 and -Lite1 in plain PyTorch (Tan and Le 2019, arXiv 1905.11946, and TensorFlow's `lite` folder).

They are EfficientNet-B0 and -B1 without squeeze and excitation and with ReLU6. Three things differ from most PyTorch
networks: images are scaled by (255 x - 127) / 128, TensorFlow's padding SAME puts the odd pixel of a stride of 2 right
and below, and batch norm's epsilon is 1e-3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ndp_rt.export.features.backbone import Backbone

BATCH_NORM_EPSILON = 1e-3
STEM_CHANNELS, HEAD_CHANNELS, CLASS_COUNT = 32, 1280, 1000


@dataclass(frozen=True)
class BlockGroup:
    """Blocks of one width; the first of them has the stride."""

    count: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0 = (
    BlockGroup(1, 3, 1, 1, 16),
    BlockGroup(2, 3, 2, 6, 24),
    BlockGroup(2, 5, 2, 6, 40),
    BlockGroup(3, 3, 2, 6, 80),
    BlockGroup(3, 5, 1, 6, 112),
    BlockGroup(4, 5, 2, 6, 192),
    BlockGroup(1, 3, 1, 6, 320),
)
LITE1 = tuple(
    BlockGroup(count, group.kernel, group.stride, group.expansion, group.channels)
    for count, group in zip((1, 3, 3, 4, 4, 5, 1), LITE0, strict=True)
)
TAPPED_GROUPS = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}  # stride -> index of the last group with it, whose output is read


class Convolution(nn.Sequential):
    """Convolution with TensorFlow's padding SAME, batch norm, and ReLU6 unless it is linear; sides even at stride 2."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, groups: int = 1, is_linear: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        total = kernel - stride  # of an axis whose length the stride divides
        if total % 2:
            before = total // 2
            layers.append(nn.ZeroPad2d((before, total - before, before, total - before)))
            padding = 0
        else:
            padding = total // 2
        layers.append(nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=padding, groups=groups, bias=False))
        layers.append(nn.BatchNorm2d(c_out, eps=BATCH_NORM_EPSILON))
        if not is_linear:
            layers.append(nn.ReLU6())
        super().__init__(*layers)


class Block(nn.Module):
    """An inverted residual: 1 x 1 wider, depthwise, 1 x 1 narrower, added to its input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.is_residual = stride == 1 and c_in == c_out
        self.expand = Convolution(c_in, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(wide, wide, kernel, stride=stride, groups=wide)
        self.project = Convolution(wide, c_out, 1, is_linear=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


class EfficientNetLite(Backbone):
    """The network up to a stride, or to ImageNet's classes.

    Args:
        groups: LITE0 or LITE1.
        strides: of the features that `forward` returns, rising, out of TAPPED_GROUPS; deeper blocks are left out.
        has_classes: whether it ends in ImageNet's classes, for which it needs all blocks.
    """

    def __init__(
        self,
        groups: tuple[BlockGroup, ...] = LITE0,
        strides: tuple[int, ...] = (2, 4, 8, 16),
        *,
        has_classes: bool = False,
    ) -> None:
        super().__init__()
        self.strides = strides
        last = len(groups) if has_classes else 1 + TAPPED_GROUPS[strides[-1]]
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2)
        self.groups = nn.ModuleList()
        c_in = STEM_CHANNELS
        for group in groups[:last]:
            blocks = []
            for index in range(group.count):
                stride = group.stride if index == 0 else 1
                blocks.append(Block(c_in, group.channels, group.kernel, stride, group.expansion))
                c_in = group.channels
            self.groups.append(nn.Sequential(*blocks))
        self.channels = tuple(groups[TAPPED_GROUPS[stride]].channels for stride in strides)
        self.head = Convolution(c_in, HEAD_CHANNELS, 1) if has_classes else None
        self.classes = nn.Linear(HEAD_CHANNELS, CLASS_COUNT) if has_classes else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features [n, c, h/s, w/s] of each stride s, of images [n, 3, h, w] from 0 to 1.

        h and w are multiples of the largest stride.
        """
        found = self._run(image)
        return tuple(found[TAPPED_GROUPS[stride]] for stride in self.strides)

    def take_blocks(self, stride: int) -> nn.Module:
        first, last = TAPPED_GROUPS[stride // 2], TAPPED_GROUPS[stride]
        return nn.Sequential(*self.groups[first + 1 : last + 1])

    def _run(self, image: Tensor) -> list[Tensor]:
        """Return the output of each group of blocks."""
        x = self.stem(image * (255.0 / 128.0) - 127.0 / 128.0)
        found = []
        for group in self.groups:
            x = group(x)
            found.append(x)
        return found

    def classify(self, image: Tensor) -> Tensor:
        """Return ImageNet's logits [n, 1000] of images [n, 3, h, w] from 0 to 1."""
        assert self.head is not None and self.classes is not None
        logits: Tensor = self.classes(self.head(self._run(image)[-1]).mean(dim=(2, 3)))
        return logits


def translate_names(tensors: Mapping[str, Tensor], groups: tuple[BlockGroup, ...]) -> dict[str, Tensor]:
    """Return the tensors of the package `efficientnet-lite-pytorch` under this module's names.

    Raises:
        KeyError: a tensor is missing.
    """
    renamed: dict[str, Tensor] = {}

    def take(source: str, norm: str, target: str, *, is_padded: bool = False) -> None:
        position = 1 if is_padded else 0
        renamed[f"{target}.{position}.weight"] = tensors[f"{source}.weight"]
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            renamed[f"{target}.{position + 1}.{part}"] = tensors[f"{norm}.{part}"]

    take("_conv_stem", "_bn0", "stem", is_padded=True)
    number = 0
    for row, group in enumerate(groups):
        for index in range(group.count):
            source, target = f"_blocks.{number}", f"groups.{row}.{index}"
            if group.expansion > 1:
                take(f"{source}._expand_conv", f"{source}._bn0", f"{target}.expand")
            is_padded = index == 0 and group.stride == 2
            take(f"{source}._depthwise_conv", f"{source}._bn1", f"{target}.depthwise", is_padded=is_padded)
            take(f"{source}._project_conv", f"{source}._bn2", f"{target}.project")
            number += 1
    take("_conv_head", "_bn1", "head")
    renamed["classes.weight"], renamed["classes.bias"] = tensors["_fc.weight"], tensors["_fc.bias"]
    return renamed

"""MemSeg's memory: what good images' features are, and how an input's differ from them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ndp_rt.export.features.coreset import choose_coreset

SMOOTH_PX = 3  # the mean that features are compared by
CANDIDATES = 8192  # positions that the memory's patches are chosen from, of each level


class Memory(nn.Module):
    """The smoothed features of good images, by level, as the buffers `level1` and so on.

    Attributes:
        op: the operation that compares with it, by its name in `kernels/`.
        level_count: of the levels.
    """

    op: str

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.level_count = len(shapes)
        for number, shape in enumerate(shapes, 1):
            self.register_buffer(f"level{number}", torch.zeros(shape))

    @property
    def levels(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, f"level{number}") for number in range(1, self.level_count + 1))

    def forward(self, smoothed: Sequence[Tensor]) -> list[Tensor]:
        """Return how each level differs from what is remembered."""
        return [self.compare(features, level) for features, level in zip(smoothed, self.levels, strict=True)]

    @torch.no_grad()
    def fill(self, smoothed: Sequence[Tensor]) -> None:
        """Remember good images by their smoothed features [n, c, h, w]."""
        for level, features in zip(self.levels, smoothed, strict=True):
            level.copy_(self.choose(features, level.shape[0]))

    @abstractmethod
    def count_channels(self, channels: int) -> int:
        """Return how many channels a difference of features has."""

    @abstractmethod
    def choose(self, features: Tensor, count: int) -> Tensor:
        """Return what is remembered of good images' features."""

    @abstractmethod
    def compare(self, features: Tensor, remembered: Tensor) -> Tensor:
        """Return the difference of features from what is remembered."""


class ImageMemory(Memory):
    """Whole images: levels [N, c, h, w]; an input is compared with the nearest of them, position by position.

    **Choice**: the authors' form. Each level looks for its own nearest image, by the sum of absolute differences of
    features smoothed 3 x 3.
    """

    op = "nearest_sample"

    def count_channels(self, channels: int) -> int:
        return channels

    def choose(self, features: Tensor, count: int) -> Tensor:
        return features[:count]

    def compare(self, features: Tensor, remembered: Tensor) -> Tensor:
        sums = torch.stack([(features - one).abs().sum(dim=(1, 2, 3)) for one in remembered], dim=1)  # [n, N]
        return (features - remembered[sums.argmin(dim=1)]).abs()


class PatchMemory(Memory):
    """Patches: levels [M, c]; each position of an input has its distance from the nearest of them, [n, 1, h, w].

    **Choice**: the distance itself takes the place of the difference by channels. Which of two equally near patches is
    the nearest hangs on the last bit, and with it every channel of a difference; the distance does not.
    """

    op = "nearest_neighbour"

    def count_channels(self, channels: int) -> int:
        return 1

    def choose(self, features: Tensor, count: int) -> Tensor:
        """Return `count` positions that lie far from each other."""
        rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        step = max(1, len(rows) // CANDIDATES)
        rows = rows[::step]
        return rows[choose_coreset(rows, count, len(rows) // 2)]

    def compare(self, features: Tensor, remembered: Tensor) -> Tensor:
        n, c, h, w = features.shape
        rows = features.permute(0, 2, 3, 1).reshape(-1, c)
        squares = (remembered * remembered).sum(dim=1) - 2.0 * (rows @ remembered.T)  # less those of the rows
        gaps = rows - remembered[squares.argmin(dim=1)]
        return gaps.square().sum(dim=1).sqrt().reshape(n, 1, h, w)


KINDS: dict[str, Any] = {"images": ImageMemory, "patches": PatchMemory}

"""What a pretrained network offers."""

from abc import abstractmethod

from torch import nn


class Backbone(nn.Module):
    """Images [n, 3, h, w] from 0 to 1 to a tuple of features, one for each stride; h and w multiples of the largest.

    Attributes:
        strides: of the features, rising.
        channels: of the features.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]

    @abstractmethod
    def take_blocks(self, stride: int) -> nn.Module:
        """Return the blocks that make the features of one of its strides, above 4, of those of half that stride."""

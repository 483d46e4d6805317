"""Features of a run's good images."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ndp_rt.export.data.images import ChosenImages, GoodImages, MirroredImages, to_network
from ndp_rt.export.features.statistics import BATCH_SIZE


def choose_evenly(count: int, largest: int) -> list[int]:
    """Return at most `largest` of the numbers below `count`, evenly."""
    kept = min(count, largest)
    return [int(index) for index in np.linspace(0, count - 1, kept).round()]


@torch.no_grad()
def extract(
    backbone: Callable[[Tensor], tuple[Tensor, ...]],
    images: GoodImages | ChosenImages | MirroredImages,
    indices: Sequence[int],
    device: str,
    use: Callable[[tuple[Tensor, ...]], Sequence[Tensor]] = lambda features: features,
) -> list[Tensor]:
    """Return what `use` makes of the images' features, float32 [n, c, h, w] of each, on the device."""
    parts = [use(backbone(batch)) for batch in read_batches(images, indices, device)]
    return [torch.cat(level) for level in zip(*parts, strict=True)]


def read_batches(
    images: GoodImages | ChosenImages | MirroredImages, indices: Sequence[int], device: str
) -> Iterator[Tensor]:
    """Yield the images as batches [n, 3, h, w]."""
    for start in range(0, len(indices), BATCH_SIZE):
        batch = to_network([images[index] for index in indices[start : start + BATCH_SIZE]])
        yield torch.from_numpy(batch).to(device)

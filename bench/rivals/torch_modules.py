"""The fused graph and what surrounds it as PyTorch modules, as torch.compile takes them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.engines.backends.torch.interpreter import TorchProgram

WINDOW_PX = 5
MARGIN = [WINDOW_PX // 2] * 4


class Network(torch.nn.Module):
    """From uint8 images [n, h, w, 3] to maps [n, 1, h, w] before smoothing, float32."""

    def __init__(self, program: TorchProgram, dtype: torch.dtype, *, channels_last: bool) -> None:
        """Take a program from `image` to `map`.

        Args:
            program: on the device.
            dtype: of `image`.
            channels_last: as the program's.
        """
        super().__init__()
        self._steps = program.steps
        self._image, self._map = program.inputs["image"], program.outputs["map"]
        self._dtype, self._channels_last = dtype, channels_last
        # The module's own: a CUDA graph reads those where they are, and copies every other tensor in at each call.
        self._names = {slot: f"constant_{slot}" for slot in program.constants}
        for slot, value in program.constants.items():
            self.register_buffer(self._names[slot], value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # Dense [n, h, w, c], seen as [n, c, h, w], is what PyTorch calls channels_last.
        image = (images.permute(0, 3, 1, 2) / 255).to(self._dtype)
        values: dict[int, Any] = {self._image: image if self._channels_last else image.contiguous()}
        for slot, name in self._names.items():
            values[slot] = getattr(self, name)
        for step in self._steps:
            step.apply(values)
            for slot in step.spent:
                del values[slot]
        maps: Tensor = values[self._map].float()
        return maps


class Inspection(torch.nn.Module):
    """From uint8 images [n, h, w, 3] to smoothed maps [n, 1, h, w] and scores [n], float32."""

    def __init__(self, network: Network, *, has_network: bool) -> None:
        """Take what makes the maps.

        Args:
            network: from images to maps.
            has_network: take the median by exchanges, which are one kernel once they are compiled, and some 200 if not.
        """
        super().__init__()
        self._network, self._has_network = network, has_network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        smoothed = smooth(self._network(images), has_network=self._has_network)
        return smoothed, smoothed.amax(dim=(1, 2, 3))


def smooth(maps: Tensor, *, has_network: bool) -> Tensor:
    """Return maps [n, 1, h, w] after a 5 x 5 mean and a 5 x 5 median, borders replicated."""
    mean = functional.avg_pool2d(functional.pad(maps, MARGIN, mode="replicate"), WINDOW_PX, stride=1)
    padded = functional.pad(mean, MARGIN, mode="replicate")
    h, w = maps.shape[2:]
    if has_network:
        places = [padded[:, :, y : y + h, x : x + w] for y in range(WINDOW_PX) for x in range(WINDOW_PX)]
        return find_median(places)
    windows = padded.unfold(2, WINDOW_PX, 1).unfold(3, WINDOW_PX, 1)
    return windows.reshape(*maps.shape, WINDOW_PX**2).median(dim=-1).values


def find_median(values: list[Tensor]) -> Tensor:
    """Return the middle one of an odd number of tensors, element by element."""
    middle, held = len(values) // 2, list(values)
    for low, high in list_exchanges(len(values), middle):
        held[low], held[high] = torch.minimum(held[low], held[high]), torch.maximum(held[low], held[high])
    return held[middle]


def list_exchanges(count: int, place: int) -> list[tuple[int, int]]:
    """Return the exchanges (low, high) of Batcher's odd-even merge sort that decide what ends at `place`."""
    pairs = []
    width = 1
    while width < count:
        step = width
        while step >= 1:
            for start in range(step % width, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * width) == (low + step) // (2 * width):
                        pairs.append((low, low + step))
            step //= 2
        width *= 2
    needed, kept = {place}, []
    for pair in reversed(pairs):
        if needed & set(pair):
            needed |= set(pair)
            kept.append(pair)
    return kept[::-1]

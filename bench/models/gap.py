"""The gap of an image and its reconstruction, the map of methods that compare pixel by pixel."""

from torch import Tensor


def measure_gap(image: Tensor, rebuilt: Tensor) -> Tensor:
    """Return the mean over colours of |image - rebuilt|, [n, 1, h, w]."""
    return (image - rebuilt).abs().mean(dim=1, keepdim=True)

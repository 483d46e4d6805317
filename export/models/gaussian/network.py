"""The network of the family `gaussian`: a backbone and the statistics of its features."""

from torch import Tensor, nn

from ndp_rt.export.features.map_range import MapRange
from ndp_rt.export.features.statistics import GRID_STRIDE, STRIDES, Statistics, enlarge
from ndp_rt.export.features.weights import BACKBONES


class GaussianNet(nn.Module):
    """An image to its anomaly map; the statistics are to be fitted.

    Args:
        backbone: one of BACKBONES.
        height_px, width_px: of the images.
    """

    def __init__(self, backbone: str, height_px: int, width_px: int) -> None:
        super().__init__()
        self.backbone = BACKBONES[backbone].make(STRIDES)
        self.backbone.requires_grad_(False)
        self.statistics = Statistics(self.backbone.channels, height_px, width_px)
        self.range = MapRange()

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the anomaly map [n, 1, h, w], 0 to 1, of images [n, 3, h, w] from 0 to 1."""
        scores, foreign = self.statistics(self.backbone(image))
        return (self.range(enlarge(scores, GRID_STRIDE), foreign),)

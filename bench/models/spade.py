"""SPADE: the nearest normal images by global features, then each position's nearest feature among those images."""

import torch
from torch import Tensor, nn

from ndp_rt.bench.models.backbones import make_wide_resnet50_2
from ndp_rt.bench.models.banks import Bank, GaussianSmoothing, find_nearest_distances
from ndp_rt.bench.models.method import CROP_FROM_PX, CROP_PX, Method, fit_map
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

IMAGE_COUNT = 280  # MVTec AD's carpet, table I of the NDP-Net paper
NEIGHBOUR_COUNT = 50


class Gallery(Bank):
    """The features of one level of every training image, [images, positions, channels]."""

    def forward(self, features: Tensor, nearest: Tensor) -> Tensor:
        """Return a map [n, 1, h, w] of distances to the nearest feature of each image's nearest [n, k] images."""
        n, c, h, w = features.shape
        queries = features.permute(0, 2, 3, 1).reshape(n, h * w, c)
        maps = []
        for index in range(n):
            bank = self.features[nearest[index]].reshape(-1, c)  # [50 * 3136, 256] to [50 * 196, 1024]
            squared_norms = self.squared_norms[nearest[index]].reshape(-1)
            maps.append(find_nearest_distances(queries[index], bank, squared_norms))
        return torch.stack(maps).view(n, 1, h, w)


class Spade(Method):
    """The whole of WideResNet-50-2, the training images' global features, and their galleries at three levels."""

    def __init__(
        self,
        *,
        input_px: int = CROP_FROM_PX,
        crop_px: int = CROP_PX,
        image_count: int = IMAGE_COUNT,
        neighbour_count: int = NEIGHBOUR_COUNT,
    ) -> None:
        super().__init__(input_px, crop_px)
        self.neighbour_count = neighbour_count
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2()
        *levels, c_global = self.backbone.channels
        self.galleries = nn.ModuleList(
            Gallery(image_count, (crop_px >> (level + 2)) ** 2, count) for level, count in enumerate(levels)
        )
        self.images = Bank(image_count, c_global)
        self.smooth = GaussianSmoothing()

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        *levels, last = self.backbone(x)
        to_images = self.images.measure_distances(last.mean((2, 3)))  # [n, 280]
        distances, nearest = to_images.topk(self.neighbour_count, largest=False)
        galleries = zip(self.galleries, levels, strict=True)
        maps = [fit_map(gallery(features, nearest), x) for gallery, features in galleries]
        return self.smooth(torch.stack(maps).mean(0)), distances.mean(1)

"""SPADE: the nearest normal images by global features, then each position's nearest feature among those images."""

import torch
from torch import Tensor, nn

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_wide_resnet50_2
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.neighbours import find_nearest_distances, measure_distances, measure_squared_norms
from ndp_rt.bench.models.seeding import build_seeded, draw_bank
from ndp_rt.bench.models.smoothing import GaussianSmoothing

RESIZE_PX = 256
INPUT_PX = 224
IMAGE_COUNT = 280  # MVTec AD's carpet, table I of the NDP-Net paper
NEIGHBOUR_COUNT = 50


class Gallery(nn.Module):
    """The features of one level of every training image."""

    features: Tensor
    squared_norms: Tensor

    def __init__(self, image_count: int, position_count: int, channel_count: int) -> None:
        super().__init__()
        self.register_buffer("features", draw_bank(image_count, position_count, channel_count))
        self.register_buffer("squared_norms", measure_squared_norms(self.features))

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


class Spade(nn.Module):
    """The whole of WideResNet-50-2, the training images' global features, and their galleries at three levels."""

    image_features: Tensor
    squared_norms: Tensor

    def __init__(
        self,
        *,
        resize_px: int = RESIZE_PX,
        crop_px: int = INPUT_PX,
        image_count: int = IMAGE_COUNT,
        neighbour_count: int = NEIGHBOUR_COUNT,
    ) -> None:
        super().__init__()
        self.resize_px, self.crop_px, self.neighbour_count = resize_px, crop_px, neighbour_count
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2()
        *levels, c_global = self.backbone.channels
        self.galleries = nn.ModuleList(
            Gallery(image_count, (crop_px >> (level + 2)) ** 2, count) for level, count in enumerate(levels)
        )
        self.register_buffer("image_features", draw_bank(image_count, c_global))
        self.register_buffer("squared_norms", measure_squared_norms(self.image_features))
        self.smooth = GaussianSmoothing()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, self.resize_px, self.crop_px))
        *levels, last = self.backbone(x)
        to_images = measure_distances(last.mean((2, 3)), self.image_features, self.squared_norms)  # [n, 280]
        distances, nearest = to_images.topk(self.neighbour_count, largest=False)
        galleries = zip(self.galleries, levels, strict=True)
        maps = [fit_map(gallery(features, nearest), x) for gallery, features in galleries]
        smooth = self.smooth(torch.stack(maps).mean(0))
        return fit_map(smooth, image, (self.resize_px - self.crop_px) // 2), distances.mean(1)


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(Spade)


ARCHITECTURE = Architecture(
    name="spade",
    title="SPADE",
    source="N. Cohen, Y. Hoshen: Sub-Image Anomaly Detection with Deep Pyramid Correspondences, 2020, arXiv:2005.02357",
    input_px=INPUT_PX,
    counted=(
        "The whole of WideResNet-50-2 on 224 x 224 pixels, cut from 256 x 256 (byungjae89/SPADE-pytorch, src/main.py "
        "and src/datasets/mvtec.py).",
        "The 50 nearest of 280 training images by 2048 global features; their mean distance is the image's score "
        "(the paper's K = 50, says its README; 280 images are MVTec AD's carpet).",
        "For every position its nearest feature (kappa = 1) among all positions of those 50 images, at 56 x 56, "
        "28 x 28 and 14 x 14 positions of 256, 512 and 1024 channels; the bank of all 280 images takes 1.6 GB.",
        "The mean of the three maps, each resized to 224 x 224, smoothed with a Gaussian of sigma 4 (src/main.py "
        "there).",
    ),
    left_out=(
        "Weights and the bank are random.",
        "The levels are searched one by one, as in the repository; one search of their concatenation would take six "
        "times the multiplications. None of this was checked against the paper.",
        "The repository itself takes K = 5, a tenth of the search, and the image ROCAUC that the NDP-Net paper states "
        "are those of its README.",
        "The map of the border that the crop cuts off repeats the map's edge.",
    ),
    reported=Reported(image_rocauc=85.56, pixel_rocauc=92.94, pro_auc=88.38),
    build=build,
    typical_s=10.0,
)

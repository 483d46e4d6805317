"""PatchCore: locally aware patch features, searched for in a coreset of the training images' patch features."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_wide_resnet50_2
from ndp_rt.bench.models.banks import Bank, GaussianSmoothing
from ndp_rt.bench.models.method import CROP_FROM_PX, CROP_PX, Method, fit_map
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

IMAGE_COUNT = 280  # MVTec AD's carpet, table I of the NDP-Net paper
CORESET_SHARE = 0.1
NEIGHBOUR_COUNT = 9  # the default of anomalib's Patchcore


class LocallyAwareFeatures(nn.Module):
    """The repository's 1024 features of every 3x3 patch, its two adaptive poolings taken together.

    Pooling 9 c values to 1024 and the two levels' 2048 to 1024 leaves, for each channel of the first level, a mean of
    its patch in which the middle counts twice, and for each pair of channels of the second, the mean of their patches.
    """

    weights: Tensor

    def __init__(self, c_first: int) -> None:
        super().__init__()
        patch = torch.full((3, 3), 0.1)
        patch[1, 1] = 0.2
        self.register_buffer("weights", patch.expand(c_first, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return features [n, 1024, h, w] of levels [n, 512, h, w] and [n, 1024, h / 2, w / 2]."""
        n, c, h, w = second.shape
        pairs = functional.avg_pool2d(second, 3, 1, 1).view(n, c // 2, 2, h, w).mean(2)
        pairs = functional.interpolate(pairs, size=first.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat((functional.conv2d(first, self.weights, padding=1, groups=first.shape[1]), pairs), 1)


class PatchCore(Method):
    """Two levels of WideResNet-50-2, and the coreset."""

    def __init__(
        self,
        *,
        input_px: int = CROP_FROM_PX,
        crop_px: int = CROP_PX,
        image_count: int = IMAGE_COUNT,
        coreset_share: float = CORESET_SHARE,
        neighbour_count: int = NEIGHBOUR_COUNT,
    ) -> None:
        super().__init__(input_px, crop_px)
        self.neighbour_count = neighbour_count
        self.normalise = ImageNetNormalisation()
        self.backbone = make_wide_resnet50_2(stages=3)
        _, c_first, c_second = self.backbone.channels
        self.embed = LocallyAwareFeatures(c_first)
        row_count = int(image_count * (crop_px // 8) ** 2 * coreset_share)
        self.coreset = Bank(row_count, c_first + c_second // 2)
        self.smooth = GaussianSmoothing()

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        _, first, second = self.backbone(x)
        features = self.embed(first, second)  # [n, 1024, 28, 28]
        n, c, h, w = features.shape
        patches = features.permute(0, 2, 3, 1).reshape(n, h * w, c)
        distances = self.coreset.find_nearest_distances(patches.reshape(-1, c)).view(n, h * w)
        return self.smooth(fit_map(distances.view(n, 1, h, w), x)), self.weigh(patches, distances)

    def weigh(self, patches: Tensor, distances: Tensor) -> Tensor:
        """Return the images' scores [n]: the largest distance, weighed by its neighbour's neighbourhood."""
        largest, index = distances.max(1)
        chosen = patches.gather(1, index.view(-1, 1, 1).expand(-1, 1, patches.shape[2])).squeeze(1)  # [n, c]
        from_chosen = self.coreset.measure_distances(chosen)  # [n, r]
        neighbour = self.coreset.features[from_chosen.argmin(1)]
        around = self.coreset.measure_distances(neighbour)
        neighbourhood = around.topk(self.neighbour_count, largest=False).indices  # [n, b], the neighbour first
        return (1.0 - from_chosen.gather(1, neighbourhood).softmax(1)[:, 0]) * largest

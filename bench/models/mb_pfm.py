"""MB-PFM: features of two ImageNet ResNets are mapped onto one another, both ways; what does not map is the defect."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_resnet34, make_resnet50
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.seeding import build_seeded

INPUT_PX = 256
LATENT_CHANNELS = (200, 400, 900)


def make_point_layers(*channels: int, has_last_activation: bool) -> nn.Sequential:
    """Return 1x1 convolutions from count to count of channels, batch norm and ReLU after each or each but the last."""
    layers: list[nn.Module] = []
    for index, (c_in, c_out) in enumerate(pairwise(channels)):
        layers.append(nn.Conv2d(c_in, c_out, 1))
        if has_last_activation or index < len(channels) - 2:
            layers += [nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class BidirectionalMapping(nn.Module):
    """Maps features of one network to the other's and back; both ways share a code of `latent` channels."""

    def __init__(self, c_first: int, c_second: int, latent: int) -> None:
        super().__init__()
        inner_first, inner_second = c_first // 2 + latent, c_second // 2 + latent
        self.encode_first = make_point_layers(c_first, inner_first, 2 * latent, has_last_activation=True)
        self.encode_second = make_point_layers(c_second, inner_second, 2 * latent, has_last_activation=True)
        self.shared = nn.Conv2d(2 * latent, latent, 1)
        self.decode_first = make_point_layers(latent, 2 * latent, inner_first, c_first, has_last_activation=False)
        self.decode_second = make_point_layers(latent, 2 * latent, inner_second, c_second, has_last_activation=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean of both ways' squared errors, summed over channels [n, 1, h, w]."""
        second_got = self.decode_second(self.shared(self.encode_first(first)))
        first_got = self.decode_first(self.shared(self.encode_second(second)))
        errors: tuple[Tensor, Tensor] = (first - first_got, second - second_got)
        return (errors[0].square().sum(1, keepdim=True) + errors[1].square().sum(1, keepdim=True)) / 2


class MbPfm(nn.Module):
    """Two ResNets, and a bidirectional mapping at each of three levels."""

    def __init__(self, *, input_px: int = INPUT_PX, latents: tuple[int, ...] = LATENT_CHANNELS) -> None:
        super().__init__()
        self.input_px = input_px
        self.normalise = ImageNetNormalisation()
        self.first = make_resnet34(stages=3)
        self.second = make_resnet50(stages=3)
        channels = zip(self.first.channels, self.second.channels, latents, strict=True)
        self.mappings = nn.ModuleList(BidirectionalMapping(*counts) for counts in channels)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, self.input_px))
        total = x.new_zeros(())
        for mapping, first, second in zip(self.mappings, self.first(x), self.second(x), strict=True):
            total = total + fit_map(mapping(functional.normalize(first), functional.normalize(second)), x)
        mean = total / len(self.mappings)
        return fit_map(mean, image), mean.amax((1, 2, 3))


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(MbPfm)


ARCHITECTURE = Architecture(
    name="mb-pfm",
    title="MB-PFM",
    source="Q. Wan, L. Gao, X. Li, L. Wen: Unsupervised Image Anomaly Detection and Segmentation Based on Pre-trained "
    "Feature Mapping, IEEE Transactions on Industrial Informatics 2022, doi:10.1109/TII.2022.3182385",
    input_px=INPUT_PX,
    counted=(
        "ResNet-34 and ResNet-50 up to their third stage on 256 x 256 pixels (the authors' repository "
        "smiler96/PFM-and-PEFM-for-Image-Anomaly-Detection-and-Segmentation, MB-PFM-ResNet.py: agent_S, agent_T, "
        "resize).",
        "At 64 x 64, 32 x 32 and 16 x 16 a mapping each way: 1x1 convolutions to half the channels plus d, to 2 d, to "
        "a shared d = 200, 400 or 900 and back up (DualProjectionNet and latent_dim there).",
        "The mean of the three levels' errors, each resized to 256 x 256; the image's score is its maximum "
        "(DFP_AD.test there).",
    ),
    left_out=(
        "Weights are random.",
        "Dividing the errors by their variance over the training images, which is off in the repository.",
    ),
    reported=Reported(pro_auc=94.60),
    build=build,
    typical_s=1.0,
)

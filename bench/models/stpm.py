"""STPM: a student ResNet-18 is taught the feature pyramid of an ImageNet one; the pyramids' difference is the map."""

from torch import Tensor, nn
from torch.nn import functional

from ndp_rt.bench.models.backbones import ImageNetNormalisation, make_resnet18
from ndp_rt.bench.models.base import Architecture, Reported
from ndp_rt.bench.models.framing import fit_image, fit_map
from ndp_rt.bench.models.seeding import build_seeded

INPUT_PX = 256


class Stpm(nn.Module):
    """Teacher, student and the product of their three difference maps."""

    def __init__(self, *, input_px: int = INPUT_PX) -> None:
        super().__init__()
        self.input_px = input_px
        self.normalise = ImageNetNormalisation()
        self.teacher = make_resnet18(stages=3)
        self.student = make_resnet18(stages=3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.normalise(fit_image(image, self.input_px))
        product: Tensor | None = None
        for wanted, got in zip(self.teacher(x), self.student(x), strict=True):
            apart = functional.normalize(wanted) - functional.normalize(got)  # [n, 64 .. 256, h/4 .. h/16, w/4 .. w/16]
            level = fit_map(0.5 * apart.square().sum(1, keepdim=True), x)
            product = level if product is None else product * level
        assert product is not None
        return fit_map(product, image), product.amax((1, 2, 3))


def build() -> nn.Module:
    """Return the page's module."""
    return build_seeded(Stpm)


ARCHITECTURE = Architecture(
    name="stpm",
    title="STPM",
    source="G. Wang, S. Han, E. Ding, D. Huang: Student-Teacher Feature Pyramid Matching for Anomaly Detection, "
    "BMVC 2021, arXiv:2103.04257",
    input_px=INPUT_PX,
    counted=(
        "Two ResNet-18 up to their third stage, teacher and student, on 256 x 256 pixels (the defaults of anomalib's "
        "Stfpm, 2.7.0).",
        "Three maps: half the squared distance of the features normalised over channels, 64 x 64, 32 x 32 and 16 x 16, "
        "resized to 256 x 256 and multiplied (stfpm/anomaly_map.py there).",
        "The image's score is the map's maximum (stfpm/torch_model.py there).",
    ),
    left_out=(
        "Weights are random.",
        "Nothing was checked against the paper, only against anomalib.",
    ),
    reported=Reported(pro_auc=95.22),
    build=build,
    typical_s=0.1,
)

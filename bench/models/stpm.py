"""STPM: a student ResNet-18 is taught the feature pyramid of an ImageNet one; the pyramids' difference is the map."""

from torch import Tensor
from torch.nn import functional

from ndp_rt.bench.models.backbones import make_resnet18
from ndp_rt.bench.models.method import Method, fit_map
from ndp_rt.export.models.ndpnet.vgg import ImageNetNormalisation

INPUT_PX = 256


class Stpm(Method):
    """Teacher, student and the product of their three difference maps."""

    def __init__(self, *, input_px: int = INPUT_PX) -> None:
        super().__init__(input_px)
        self.normalise = ImageNetNormalisation()
        self.teacher = make_resnet18(stages=3)
        self.student = make_resnet18(stages=3)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        product: Tensor | None = None
        for wanted, got in zip(self.teacher(x), self.student(x), strict=True):
            apart = functional.normalize(wanted) - functional.normalize(got)  # [n, 64 .. 256, h/4 .. h/16, w/4 .. w/16]
            level = fit_map(0.5 * apart.square().sum(1, keepdim=True), x)
            product = level if product is None else product * level
        assert product is not None
        return product, None

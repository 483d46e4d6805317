"""Settings that families with a pretrained backbone share."""

from dataclasses import dataclass
from typing import ClassVar

from ndp_rt.export.features.options import NAMES
from ndp_rt.export.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class PretrainedSettings(TrainSettings):
    """Everything that decides the weights, besides the data and the machine.

    Raises:
        InputError: a value out of its range.
    """

    presets: ClassVar[tuple[str, ...]] = ("lite",)
    size_step_px: ClassVar[int] = 16  # the largest stride of the features

    preset: str = "lite"
    holdout: float = 0.15
    validation_share: float = 0.1  # images that were fitted look better than others
    backbone: str = "lite0"
    largest_image_count: int = 400  # of the statistics, at 256 x 256 px; of more they are taken evenly

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("preset", self.preset in self.presets, " or ".join(self.presets))
        self.check("backbone", self.backbone in NAMES, " or ".join(NAMES))
        self.check("validation_share", self.validation_share > 0.0, "above 0")
        self.check("largest_image_count", self.largest_image_count >= 2, "2 or more")

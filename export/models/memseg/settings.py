"""MemSeg's presets and its own settings of training."""

from dataclasses import dataclass

from ndp_rt.export.features.options import NAMES
from ndp_rt.export.training.settings import TrainSettings

SIZE_STEP_PX = 16


@dataclass(frozen=True, kw_only=True)
class MemSegSettings(TrainSettings):
    """Everything that decides the weights, besides the data and the machine; the defaults are preset `lite`.

    Raises:
        InputError: a value out of its range.
    """

    preset: str = "lite"
    phase_steps: tuple[int, ...] = (1200,)
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    backbone: str = "lite0"
    largest_image_count: int = 400  # of the statistics; more are taken evenly
    holdout: float = 0.15
    validation_share: float = 0.1
    averaging: float = 0.99  # of the head's weights, over steps
    focal_gamma: float = 2.0
    focal_balance: float = 0.75
    l1_weight: float = 0.05  # against the focal loss

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("preset", self.preset == "lite", "lite")
        self.check("phase_steps", len(self.phase_steps) == 1, "one number from 1")
        self.check("backbone", self.backbone in NAMES, " or ".join(NAMES))
        self.check("largest_image_count", self.largest_image_count >= 2, "2 or more")
        self.check("validation_share", self.validation_share > 0.0, "above 0")
        self.check("averaging", 0.0 <= self.averaging < 1.0, "0 to below 1")
        for name in ("height_px", "width_px", "crop_px"):
            value = getattr(self, name)
            self.check(name, value >= SIZE_STEP_PX and value % SIZE_STEP_PX == 0, f"a multiple of {SIZE_STEP_PX}")

"""NDP-Net's presets and its own settings of training."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ndp_rt.errors import InputError
from ndp_rt.export.training.settings import TrainSettings, apply_changes
from ndp_rt.program.version1 import SIZE_STEP_PX

PRESET_WIDTH = {"edge": 16, "paper": 64}
PAPER_EPOCHS = (400, 200)
LARGEST_WEIGHT = 1000.0


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the losses, the paper's unless said otherwise; `per` counts only with a VGG-16 file."""

    rec: float = 100.0
    per: float = 1.0
    def_per: float = 1.0
    fea_rep: float = 1.0
    seg: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DistilSettings:
    """Weights of what a teacher adds to the losses; a part of weight 0 is left out.

    Raises:
        InputError: a weight out of its range, or nothing left.
    """

    maps: float = 1.0  # of phase 2: the teacher's anomaly maps as soft targets
    features: float = 0.0  # of phase 1: the teacher's encoder, through projections

    def __post_init__(self) -> None:
        for name, option in (("maps", "--distil-weight"), ("features", "--distil-features")):
            weight = getattr(self, name)
            if not 0.0 <= weight <= LARGEST_WEIGHT:
                raise InputError(f"{option}: expected a number from 0 to {LARGEST_WEIGHT:g}, got {weight}.")
        if self.maps == self.features == 0.0:
            raise InputError(
                "--distil-weight and --distil-features: expected one of them above 0, got 0 for both. Leave --teacher "
                "out to train without one."
            )


@dataclass(frozen=True, kw_only=True)
class NdpNetSettings(TrainSettings):
    """Everything that decides the weights, besides the data and the machine; the defaults are preset `edge`.

    Raises:
        InputError: a value out of its range.
    """

    size_step_px: ClassVar[int] = SIZE_STEP_PX

    preset: str = "edge"
    phase_steps: tuple[int, ...] = (500, 3500)
    width: int = PRESET_WIDTH["edge"]
    freezes_encoder: bool = True  # in phase 2
    weights: LossWeights = field(default_factory=LossWeights)
    distil: DistilSettings | None = None  # None: no teacher
    focal_gamma: float = 2.0
    focal_balance: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("phase_steps", len(self.phase_steps) == 2, "two numbers from 1")
        self.check("width", self.width >= 2 and self.width % 2 == 0, "an even number from 2")


def preset_settings(preset: str, **changes: Any) -> NdpNetSettings:
    """Return a preset's settings with some of them changed.

    `paper` follows the spec: Adam at a constant 1e-4, whole images, a frozen encoder in phase 2; its steps follow from
    the number of images (400 and 200 epochs) and are the caller's to give. `edge` is what worked within the hour on
    two CPU cores: crops, a cosine schedule from 1e-3 and few steps.

    Raises:
        InputError: a preset that isn't there, or a value out of its range.
    """
    if preset not in PRESET_WIDTH:
        raise InputError(f"expected preset {' or '.join(PRESET_WIDTH)}, got '{preset}'.")
    values: dict[str, Any] = {"preset": preset, "width": PRESET_WIDTH[preset]}
    if preset == "paper":
        side = max(changes.get("height_px", 256), changes.get("width_px", 256))
        values |= {"crop_px": side, "learning_rate": 1e-4, "schedule": "constant"}
    return NdpNetSettings(**apply_changes(values, changes))

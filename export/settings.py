"""Settings of a training run, and what the two presets set them to."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ndp_rt.errors import InputError
from ndp_rt.export.models.ndpnet import PRESET_WIDTH
from ndp_rt.images.painting import DefectSettings
from ndp_rt.program.manifest import InputContract

CROP_STEP_PX = 64  # level 5 is 1/16 of the input and is cut into patches of up to 4
LARGEST_CHANGES = {"turn_degrees": 180.0, "zoom": 2.0}  # of AugmentSettings; the others go up to 1
LARGEST_SEED = 2**63 - 1  # torch's
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
                raise InputError(f"{option} is {weight}; a number from 0 to {LARGEST_WEIGHT:g} is taken.")
        if self.maps == self.features == 0.0:
            raise InputError(
                "--distil-weight and --distil-features are both 0; one of them above 0 is taken. Leave --teacher out "
                "to train without one."
            )


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """How far good images are changed before a defect is painted: the paper names none, the defaults are **choice**.

    Raises:
        ValueError: a number out of its range.
    """

    warp_share: float = 0.4  # of the images that are turned and zoomed a little
    turn_degrees: float = 12.0
    zoom: float = 0.2  # logarithm of the largest zoom
    is_mirrored: bool = True  # mirrored and turned by quarters
    contrast: float = 0.2
    brightness: float = 0.05  # standard deviation
    blur_share: float = 0.15
    noise_share: float = 0.3
    noise: float = 0.02  # largest standard deviation
    spot_share: float = 0.0  # of the images that get harmless blots; for surfaces where only lines are defects

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            largest = LARGEST_CHANGES.get(name, 1.0)
            if not 0.0 <= value <= largest:
                raise ValueError(f"AugmentSettings: {name} is {value}; a number from 0 to {largest:g} is taken.")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides the weights, besides the data and the machine; the defaults are preset `edge`.

    Raises:
        InputError: a value out of its range.
    """

    preset: str = "edge"
    width: int = PRESET_WIDTH["edge"]
    height_px: int = 256
    width_px: int = 256
    crop_px: int = 128  # side of the random crops that training sees
    batch_size: int = 8
    phase_steps: tuple[int, int] = (500, 3500)
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "cosine"] = "cosine"  # cosine: a short rise, then down to 1 % within each phase
    freezes_encoder: bool = True  # in phase 2
    weights: LossWeights = field(default_factory=LossWeights)
    distil: DistilSettings | None = None  # None: no teacher
    focal_gamma: float = 2.0
    focal_balance: float = 0.75
    precision: Literal["bf16", "fp32"] = "bf16"
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    defects: DefectSettings = field(default_factory=DefectSettings)
    seed: int = 0
    holdout: float = 0.1  # share of the good images kept for calibration
    thread_count: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        rules = {
            "height_px": (_is_whole_steps(self.height_px), "multiples of 64, from 64,"),
            "width_px": (_is_whole_steps(self.width_px), "multiples of 64, from 64,"),
            "crop_px": (_is_whole_steps(self.crop_px), "multiples of 64, from 64,"),
            "width": (self.width >= 2 and self.width % 2 == 0, "even numbers from 2"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "phase_steps": (min(self.phase_steps) >= 1, "two numbers from 1"),
            "learning_rate": (0.0 < self.learning_rate < 1.0, "a number between 0 and 1"),
            "holdout": (0.0 <= self.holdout < 1.0, "a share from 0 to below 1"),
            "seed": (0 <= self.seed <= LARGEST_SEED, f"0 to {LARGEST_SEED}"),
            "thread_count": (self.thread_count >= 1, "1 or more"),
        }
        for name, (is_met, taken) in rules.items():
            if not is_met:
                raise InputError(f"{name} is {getattr(self, name)}; {taken} are taken. Change that option.")

    @property
    def contract(self) -> InputContract:
        """The input contract of the network that this trains."""
        return InputContract(height_px=self.height_px, width_px=self.width_px)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as JSON values; without `distil` where there is no teacher, as before there were any."""
        document = dataclasses.asdict(self) | {"phase_steps": list(self.phase_steps)}
        if self.distil is None:
            del document["distil"]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrainSettings":
        """Return the settings that to_json wrote."""
        values = dict(document)
        values["phase_steps"] = tuple(values["phase_steps"])
        values["weights"] = LossWeights(**values["weights"])
        values["augment"] = AugmentSettings(**values["augment"])
        values["defects"] = DefectSettings(**values["defects"])
        if values.get("distil") is not None:
            values["distil"] = DistilSettings(**values["distil"])
        return cls(**values)


def _change_fields(kind: type[Any], changes: Mapping[str, float], option: str) -> Any:
    """Return a settings dataclass with some numbers changed.

    Raises:
        InputError: a field that isn't there, or a value out of its range.
    """
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise InputError(f"--{option} names {', '.join(unknown)}; {', '.join(sorted(known))} are taken.")
    try:
        return kind(**changes)
    except ValueError as error:
        raise InputError(f"--{option}: {error}") from error


def preset_settings(preset: str, **changes: Any) -> TrainSettings:
    """Return a preset's settings with some of them changed.

    `paper` follows the spec: Adam at a constant 1e-4, whole images, a frozen encoder in phase 2; its steps follow from
    the number of images (400 and 200 epochs) and are the caller's to give. `edge` is what worked within the hour on
    two CPU cores: crops, a cosine schedule from 1e-3 and few steps.

    Raises:
        InputError: a preset that isn't there, or a value out of its range.
    """
    if preset not in PRESET_WIDTH:
        raise InputError(f"preset is '{preset}'; one of {', '.join(sorted(PRESET_WIDTH))} is taken.")
    values: dict[str, Any] = {"preset": preset, "width": PRESET_WIDTH[preset]}
    for name, kind in (("defects", DefectSettings), ("augment", AugmentSettings)):
        if isinstance(changes.get(name), dict):
            changes[name] = _change_fields(kind, changes[name], name)
    if preset == "paper":
        side = max(changes.get("height_px", 256), changes.get("width_px", 256))
        values |= {"crop_px": side, "learning_rate": 1e-4, "schedule": "constant"}
    return TrainSettings(**{**values, **changes})


PAPER_EPOCHS = (400, 200)


def steps_of_epochs(epochs: tuple[int, int], image_count: int, batch_size: int) -> tuple[int, int]:
    """Return the steps of each phase that see every image so many times."""
    batch_count = max(1, -(-image_count // batch_size))
    return epochs[0] * batch_count, epochs[1] * batch_count


def _is_whole_steps(size_px: int) -> bool:
    return size_px >= CROP_STEP_PX and size_px % CROP_STEP_PX == 0

"""Settings that every training run has, whatever it trains; a family adds its own."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import InputError
from ndp_rt.images.painting.defects import DefectSettings
from ndp_rt.program.manifest import InputContract

if TYPE_CHECKING:
    from typing_extensions import Self

LARGEST_CHANGES = {"turn_degrees": 180.0, "zoom": 2.0}  # of AugmentSettings; the others go up to 1
LARGEST_SEED = 2**63 - 1  # torch's

_Settings = TypeVar("_Settings")


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """How far good images are changed before a defect is painted; the defaults are a **choice** of this project.

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
                raise ValueError(f"AugmentSettings: expected {name} from 0 to {largest:g}, got {value}.")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Everything that decides the weights, besides the data and the machine.

    A family's own settings are a subclass. `phase_steps` has as many entries as the family has phases.

    Raises:
        InputError: a value out of its range.
    """

    size_step_px: ClassVar[int] = 1  # of which height, width and crop have to be multiples

    preset: str
    phase_steps: tuple[int, ...]
    height_px: int = 256
    width_px: int = 256
    white_level_16bit: int = 65535  # see InputContract
    crop_px: int = 128  # side of the random crops that training sees
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: Literal["constant", "cosine"] = "cosine"  # cosine: a short rise, then down to 1 % within each phase
    precision: Literal["bf16", "fp32"] | None = None  # bf16: mixed precision. None: that, where the device has it
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    defects: DefectSettings = field(default_factory=DefectSettings)
    seed: int = 0
    holdout: float = 0.1  # share of the good images kept for calibration
    validation_share: float = 0.0  # of the others, kept from training for the choices that a family makes after it
    thread_count: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.precision is None:  # without instructions of its own for bf16 a CPU takes a hundred times as long
            has_bf16 = self.device != "cpu" or find_cpu().has_bf16
            object.__setattr__(self, "precision", "bf16" if has_bf16 else "fp32")
        _ = self.contract  # which refuses what no input can be
        for name in ("height_px", "width_px", "crop_px"):
            value, step = getattr(self, name), self.size_step_px
            self.check(name, value >= step and value % step == 0, f"a multiple of {step}" if step > 1 else "1 or more")
        self.check("batch_size", self.batch_size >= 1, "1 or more")
        self.check("phase_steps", min(self.phase_steps, default=1) >= 1, "numbers from 1")
        self.check("learning_rate", 0.0 < self.learning_rate < 1.0, "a number between 0 and 1")
        self.check("validation_share", 0.0 <= self.validation_share <= 0.5, "a share from 0 to 0.5")
        self.check("holdout", 0.0 <= self.holdout < 1.0, "a share from 0 to below 1")
        self.check("seed", 0 <= self.seed <= LARGEST_SEED, f"0 to {LARGEST_SEED}")
        self.check("thread_count", self.thread_count >= 1, "1 or more")

    def check(self, name: str, is_met: bool, expected: str) -> None:
        """Refuse the value of one setting.

        Raises:
            InputError: the rule is not met.
        """
        if not is_met:
            raise InputError(f"expected {name} to be {expected}, got {getattr(self, name)}. Change that option.")

    @property
    def contract(self) -> InputContract:
        """The input contract of the network that this trains."""
        return InputContract(height_px=self.height_px, width_px=self.width_px, white_level_16bit=self.white_level_16bit)

    def to_json(self) -> dict[str, Any]:
        """Return all settings as JSON values; an optional part that is None is left out."""
        document = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return document | {"phase_steps": list(self.phase_steps)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Self":
        """Return the settings that to_json wrote.

        Raises:
            KeyError, TypeError: an entry is missing, or unknown.
            ValueError: a value out of its range.
        """
        _ = document["preset"], document["phase_steps"]  # which no run lacks
        return _read(cls, document)


def _read(kind: type[_Settings], document: Mapping[str, Any]) -> _Settings:
    """Return a settings dataclass with the dataclasses inside it."""
    values = dict(document)
    for name, hint in typing.get_type_hints(kind).items():
        if isinstance(hint, types.UnionType):  # an optional part
            hint = next(one for one in typing.get_args(hint) if one is not types.NoneType)
        if name in values and hint is DefectSettings:  # runs of 0.1 have another painter's settings: left out
            known = {field.name for field in dataclasses.fields(DefectSettings)}
            values[name] = {key: value for key, value in values[name].items() if key in known}
        if name in values and isinstance(hint, type) and dataclasses.is_dataclass(hint):
            values[name] = _read(hint, values[name])
        elif name in values and typing.get_origin(hint) is tuple:
            values[name] = tuple(values[name])
    return kind(**values)


def apply_changes(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's values with those of the command line in their place.

    `augment` and `defects` among the changes may be single numbers by name.

    Raises:
        InputError: a name that isn't there, or a number out of its range.
    """
    parts = {"augment": AugmentSettings, "defects": DefectSettings}
    changed = {
        name: _make_part(parts[name], value, name) if name in parts and isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return {**values, **changed}


def _make_part(kind: type[Any], changes: Mapping[str, float], option: str) -> Any:
    known = sorted(field.name for field in dataclasses.fields(kind))
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise InputError(f"--{option}: expected names out of {', '.join(known)}, got {', '.join(unknown)}.")
    try:
        return kind(**changes)
    except ValueError as error:
        raise InputError(f"--{option}: {error}") from error


def steps_of_epochs(epochs: tuple[int, ...], image_count: int, batch_size: int) -> tuple[int, ...]:
    """Return the steps of each phase that see every image so many times."""
    batch_count = max(1, -(-image_count // batch_size))
    return tuple(count * batch_count for count in epochs)

"""Settings of the family `gaussian`."""

from dataclasses import dataclass
from typing import Literal

from ndp_rt.export.features.settings import PretrainedSettings


@dataclass(frozen=True, kw_only=True)
class GaussianSettings(PretrainedSettings):
    """Everything that decides the statistics, besides the data and the machine.

    Raises:
        InputError: a value out of its range.
    """

    phase_steps: tuple[int, ...] = ()
    precision: Literal["bf16", "fp32"] | None = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("phase_steps", not self.phase_steps, "empty: nothing is trained")

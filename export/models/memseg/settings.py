"""MemSeg's presets and its own settings of training."""

from dataclasses import dataclass

from ndp_rt.export.features.settings import PretrainedSettings


@dataclass(frozen=True, kw_only=True)
class MemSegSettings(PretrainedSettings):
    """Everything that decides the weights, besides the data and the machine; the defaults are preset `lite`.

    Raises:
        InputError: a value out of its range.
    """

    phase_steps: tuple[int, ...] = (1200,)
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    averaging: float = 0.99  # of the head's weights, over steps
    focal_gamma: float = 2.0
    focal_balance: float = 0.75
    l1_weight: float = 0.05  # against the focal loss

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("phase_steps", len(self.phase_steps) == 1, "one number from 1")
        self.check("averaging", 0.0 <= self.averaging < 1.0, "0 to below 1")

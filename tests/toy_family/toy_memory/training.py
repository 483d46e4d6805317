"""How the toy trains: the memory is made of good images, then the head learns to find painted defects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ndp_rt.export.data.images import to_network
from ndp_rt.export.models.family import Phase, Say, TrainData, Training
from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.export.training.settings import TrainSettings
from toy_memory.network import CHANNELS, STRIDE, ToyNet, find_nearest

DEFECT_WEIGHT = torch.tensor(10.0)  # defects cover little of an image


@dataclass(frozen=True, kw_only=True)
class ToySettings(TrainSettings):
    """The toy's settings; the defaults train in seconds."""

    preset: str = "small"
    phase_steps: tuple[int, ...] = (120,)
    height_px: int = 48
    width_px: int = 40
    crop_px: int = 40
    batch_size: int = 4
    learning_rate: float = 0.03
    precision: str = "fp32"
    memory_count: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("memory_count", self.memory_count >= 1, "1 or more")
        for name in ("height_px", "width_px", "crop_px"):
            self.check(name, getattr(self, name) % STRIDE == 0, f"a multiple of {STRIDE}")


class ToyTraining(Training):
    """One training run of the toy."""

    settings: ToySettings

    def load(self, data: TrainData, say: Say) -> None:
        self.model = ToyNet(self.settings.memory_count)
        self.modules["model"] = self.model
        with torch.no_grad():
            images = torch.from_numpy(to_network([data.images[index] for index in range(len(data.images))]))
            rows = self.model.features(images).permute(0, 2, 3, 1).reshape(-1, CHANNELS)
            chosen = np.linspace(0, len(rows) - 1, self.settings.memory_count).astype(np.int64)
            self.model.patches.copy_(rows[chosen])
        say(f"memory: {self.settings.memory_count} patches of {len(images)} good images")

    def begin_phase(self, phase: int) -> Phase:
        head = self.model.train().head

        def find_losses(good: Tensor, defective: Tensor, mask: Tensor) -> dict[str, Tensor]:
            features = self.model.features(defective)
            logits = head.find_logits(features, find_nearest(features, self.model.patches))
            return {"seg": functional.binary_cross_entropy_with_logits(logits, mask, pos_weight=DEFECT_WEIGHT)}

        return Phase(optimizer=torch.optim.Adam(head.parameters(), foreach=False), find_losses=find_losses)

    def end_phase(self, phase: int, folder: RunFolder, say: Say) -> dict[str, Any]:
        return {"memory_count": self.settings.memory_count}

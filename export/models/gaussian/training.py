"""How the family `gaussian` is fitted: features of the good images, their statistics, the map's range."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ndp_rt.export.data.images import to_network
from ndp_rt.export.features.statistics import BATCH_SIZE, join
from ndp_rt.export.features.weights import describe_weights, find_weights, load_backbone
from ndp_rt.export.models.family import Phase, Say, TrainData, Training
from ndp_rt.export.models.gaussian.network import GaussianNet
from ndp_rt.export.models.gaussian.settings import GaussianSettings


class GaussianTraining(Training):
    """One fit of the family.

    Args:
        settings: all that decides the statistics.
        options: `backbone_weights`, a file or None.

    Raises:
        InputError: the file is not there.
        MissingExtraError: neither a file nor the package with the weights is there.
    """

    settings: GaussianSettings

    def __init__(self, settings: GaussianSettings, options: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.weights_file: Path | None = options.get("backbone_weights")
        self.files = {"backbone": describe_weights(find_weights(settings.backbone, self.weights_file))}
        self.file_options = {"backbone": "--backbone-weights"}

    def load(self, data: TrainData, say: Say) -> None:
        """Fit the statistics."""
        settings = self.settings
        self.model = GaussianNet(settings.backbone, settings.height_px, settings.width_px)
        statistics = self.model.statistics
        self.model.backbone = load_backbone(settings.backbone, self.weights_file, self.model.backbone.strides)
        self.model.to(settings.device).eval()
        self.modules["model"] = self.model
        count = min(len(data.images), settings.largest_image_count)
        chosen = np.linspace(0, len(data.images) - 1, count).round().astype(np.int64)
        with torch.no_grad():
            parts = []
            for start in range(0, count, BATCH_SIZE):
                batch = to_network([data.images[int(index)] for index in chosen[start : start + BATCH_SIZE]])
                parts.append(join(self.model.backbone(torch.from_numpy(batch).to(settings.device))))
            joined = torch.cat(parts)
            statistics.fit(joined)
            scores = (statistics.find_distance(joined) - statistics.distance_mean) / statistics.distance_spread
            self.model.set_range(scores.amax(dim=(1, 2, 3)))
        say(f"statistics of {count} good images: {joined.shape[1]} features at {joined[0, 0].numel()} positions")

    def begin_phase(self, phase: int) -> Phase:
        raise AssertionError("the family has no phases")

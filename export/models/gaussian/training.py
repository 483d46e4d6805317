"""How the family `gaussian` is fitted: features of the good images, their statistics, the map's range."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndp_rt.export.features.extract import choose_evenly, extract
from ndp_rt.export.features.statistics import join
from ndp_rt.export.features.weights import describe_weights, find_weights, load_backbone
from ndp_rt.export.models.family import Phase, Say, TrainData, Training
from ndp_rt.export.models.gaussian.network import GaussianNet
from ndp_rt.export.models.gaussian.settings import GaussianSettings

TYPICAL_VALUES = (0.25, 0.75)  # of the map: at the median good image's highest z-score, and at twice that


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
        backbone = load_backbone(settings.backbone, self.weights_file, self.model.backbone.strides)
        self.model.backbone = backbone.to(settings.device)
        self.model.to(settings.device).eval()
        self.modules["model"] = self.model
        chosen = choose_evenly(len(data.images), settings.largest_image_count)
        (joined,) = extract(backbone, data.images, chosen, settings.device, lambda features: [join(features)])
        self.model.statistics.fit(joined)
        assert data.validation is not None
        held_out = range(len(data.validation))
        scores = extract(backbone, data.validation, held_out, settings.device, lambda f: [self.model.statistics(f)])
        typical = max(1.0, float(scores[0].amax(dim=(1, 2, 3)).median()))
        self.model.range.fit((typical, 2.0 * typical), TYPICAL_VALUES)
        say(f"statistics of {len(chosen)} good images: {joined.shape[1]} features at {joined[0, 0].numel()} positions")

    def begin_phase(self, phase: int) -> Phase:
        raise AssertionError("the family has no phases")

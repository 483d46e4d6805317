"""What training has in common where a backbone is pretrained: the file of its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndp_rt.export.data.split import describe_file
from ndp_rt.export.features.backbone import Backbone
from ndp_rt.export.features.settings import PretrainedSettings
from ndp_rt.export.features.weights import find_weights, load_backbone
from ndp_rt.export.models.family import Training


class PretrainedTraining(Training):
    """One run of a family with a pretrained backbone.

    Args:
        settings: all that decides the weights.
        options: `backbone_weights`, a file or None.

    Raises:
        InputError: the file is not there.
        MissingExtraError: neither a file nor the package with the weights is there.
    """

    settings: PretrainedSettings

    def __init__(self, settings: PretrainedSettings, options: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.weights_file: Path | None = options.get("backbone_weights")
        self.files = {"backbone": describe_file(find_weights(settings.backbone, self.weights_file))}
        self.file_options = {"backbone": "--backbone-weights"}

    def load_weights(self, strides: tuple[int, ...]) -> Backbone:
        """Return the backbone with its weights, for features of these strides."""
        return load_backbone(self.settings.backbone, self.weights_file, strides).to(self.settings.device)

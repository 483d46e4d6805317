"""What training has in common where a backbone is pretrained: its weights, averaged weights, painted validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ndp_rt.arrays import BoolArray
from ndp_rt.export.data.images import ChosenImages, MirroredImages
from ndp_rt.export.data.painted import paint_unseen
from ndp_rt.export.data.split import describe_file
from ndp_rt.export.features.backbone import Backbone
from ndp_rt.export.features.extract import choose_evenly
from ndp_rt.export.features.settings import PretrainedSettings
from ndp_rt.export.features.statistics import BATCH_SIZE
from ndp_rt.export.features.weights import find_weights, load_backbone
from ndp_rt.export.models.family import Say, TrainData, Training

USUAL_AREA_PX = 256 * 256  # of larger images fewer are fitted, so that memory and time stay
PAINTED_COUNT = 60  # defects that choices after training are made on


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

    def choose_fitted(self, data: TrainData, say: Say) -> ChosenImages | MirroredImages:
        """Return the good images that statistics are fitted to, mirrored and turned too where training does that."""
        settings, is_mirrored = self.settings, self.settings.augment.is_mirrored
        growth = max(1.0, settings.height_px * settings.width_px / USUAL_AREA_PX)
        most = max(2, int(settings.largest_image_count / growth))
        chosen = choose_evenly(len(data.images), most // 2 if is_mirrored else most)
        copies = ", and a mirrored or turned copy of each" if is_mirrored else ""
        say(f"statistics of {len(chosen)} good images{copies}")
        return (MirroredImages if is_mirrored else ChosenImages)(data.images, chosen)

    def average_weights(self, module: nn.Module, decay: float) -> AveragedModel:
        """Return a copy of a module that follows its weights and buffers, by an exponential mean of this decay."""
        return AveragedModel(
            module,
            multi_avg_fn=get_ema_multi_avg_fn(decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )

    def paint_validation(self, data: TrainData) -> tuple[tuple[Tensor, ...], BoolArray]:
        """Return batches [n, 3, h, w] of held-out good images with and without painted defects, and which have one.

        The defects are of kinds that training never paints. No label from people is used.
        """
        assert data.validation is not None
        painted, masks = paint_unseen(data.validation, data.textures, self.settings, PAINTED_COUNT)
        images = torch.from_numpy(painted).to(self.settings.device)
        return torch.split(images, BATCH_SIZE), np.asarray(masks.any(axis=(1, 2)), np.bool_)

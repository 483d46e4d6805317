"""Distillation: what a trained teacher adds to the losses of a smaller network that is being trained.

Teacher and student see the same batch, cropped, augmented and with painted defects: a student learns the teacher's
function best where both see the same picture (Beyer et al., CVPR 2022). The teacher is imitated where the two
networks have the same shape and need nothing in between: the logits of AM_1 to AM_3, as soft targets of every pixel
(Hinton et al., 2015; of segmentation: Liu et al., CVPR 2019). The features of the encoders differ in width; they are
compared through 1 x 1 convolutions (Romero et al., 2015), normalised, so that their size does not count
(arXiv 2207.05256). These convolutions are trained along and are no part of the network.

Its reconstruction and repaired features are not imitated, since what they aim at, the good image, is at hand.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ndp_rt.export.models.ndpnet import losses
from ndp_rt.export.models.ndpnet.network import NDPNet, level_channels
from ndp_rt.export.models.ndpnet.settings import DistilSettings


class Distiller:
    """A frozen teacher, and the projections of the student's features to its width.

    Args:
        teacher: in the form that it serves in; never trained, its batch norms keep their statistics.
        student_width: the w of the network that is trained.
        settings: weights of the losses; a part of weight 0 is not computed.
    """

    def __init__(self, teacher: NDPNet, student_width: int, settings: DistilSettings) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.settings = settings
        self.projections = nn.ModuleList()
        if settings.features > 0.0:
            teacher_width = next(teacher.encoder.parameters()).shape[0]  # the filters of its first convolution
            widths = zip(level_channels(student_width), level_channels(teacher_width), strict=True)
            self.projections.extend(nn.Conv2d(c_in, c_out, 1) for c_in, c_out in widths)
            self.projections.to(next(teacher.parameters()).device)

    def parameters(self, phase: int) -> list[nn.Parameter]:
        """Return what a phase trains besides the student."""
        return list(self.projections.parameters()) if phase == 1 else []

    def phase_1_losses(self, images: Tensor, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the weighted loss of phase 1.

        Args:
            images: float32 [n, 3, h, w], 0 to 1.
            features: what the student's encoder makes of them, levels 1 to 5.
        """
        if not self.projections:
            return {}
        with torch.no_grad():
            wanted = self.teacher.encoder(images)
        projected = [project(f) for project, f in zip(self.projections, features, strict=True)]
        return {"dist_fea": self.settings.features * losses.feature_imitation_loss(projected, wanted)}

    def phase_2_losses(self, images: Tensor, map_logits: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the weighted loss of phase 2.

        Args:
            images: float32 [n, 3, h, w], 0 to 1.
            map_logits: the student's logits of AM_1 to AM_3 for them.
        """
        if self.settings.maps == 0.0:
            return {}
        with torch.no_grad():
            wanted = self.teacher.run(images).map_logits
        return {"dist_map": self.settings.maps * losses.map_imitation_loss(map_logits, wanted)}

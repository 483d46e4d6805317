"""Validation images without labels from people: held-out good images, as they are and with defects painted in.

The defects are of kinds that training never paints (`ndp_rt.images.painting.kinds.UNSEEN`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ndp_rt.export.data.batches import augment
from ndp_rt.export.data.images import GoodImages, to_network
from ndp_rt.export.training.settings import TrainSettings
from ndp_rt.images.painting.defects import DefectSettings, paint_defect
from ndp_rt.images.painting.kinds import UNSEEN, TextureSource

STREAM = 0x9A1D  # keeps these random numbers apart from the batches'
ALWAYS = DefectSettings(defect_free_share=0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class PaintedImages:
    """Images with painted defects, and as many good ones."""

    images: npt.NDArray[np.float32]  # [k, 3, h, w], 0 to 1
    masks: npt.NDArray[np.bool_]  # [k, h, w], nowhere True for a good image

    @property
    def is_defective(self) -> npt.NDArray[np.bool_]:
        """[k]: which images have a defect."""
        return np.asarray(self.masks.any(axis=(1, 2)), np.bool_)


def paint_unseen(images: GoodImages, textures: TextureSource, settings: TrainSettings, count: int) -> PaintedImages:
    """Return `count` good images, augmented, each as it is and with a defect of an unseen kind.

    Args:
        images: held out from training, used in turn.
        textures: for fills.
        settings: seed and augmentation.
        count: of the defects; one that cannot be told from the surface is left out.
    """
    found, masks = [], []
    for number in range(count):
        rng = np.random.default_rng([settings.seed, STREAM, number])
        image = images[number % len(images)]
        good = augment(rng, image, max(image.shape[:2]), settings.augment)
        painted, mask = paint_defect(rng, good, textures, ALWAYS, UNSEEN)
        pairs = [(good, np.zeros_like(mask)), (painted, mask)] if mask.any() else [(good, mask)]
        found += [one for one, _ in pairs]
        masks += [one for _, one in pairs]
    return PaintedImages(images=to_network(found), masks=np.stack(masks))

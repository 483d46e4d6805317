"""Validation images without labels from people: held-out good images, as they are and with defects painted in.

The defects are of kinds that training never paints (`ndp_rt.images.painting.kinds.UNSEEN`).
"""

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.export.data.batches import augment
from ndp_rt.export.data.images import GoodImages, to_network
from ndp_rt.export.training.settings import TrainSettings
from ndp_rt.images.painting.defects import ALWAYS, paint_defect
from ndp_rt.images.painting.kinds import UNSEEN, TextureSource

STREAM = 0x9A1D  # keeps these random numbers apart from the batches'


def paint_unseen(
    images: GoodImages, textures: TextureSource, settings: TrainSettings, count: int
) -> tuple[FloatArray, BoolArray]:
    """Return `count` good images, augmented, each as it is and with a defect of an unseen kind.

    Args:
        images: held out from training, used in turn.
        textures: for fills.
        settings: seed and augmentation.
        count: of the defects; one that cannot be told from the surface is left out.

    Returns:
        float32 [k, 3, h, w], 0 to 1, and masks [k, h, w], nowhere True for a good image.
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
    return to_network(found), np.stack(masks)

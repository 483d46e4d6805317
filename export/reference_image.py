"""Chooses the reference: the good training image nearest the mean of the others' features, or one given by hand.

**Choice** (the paper doesn't say): an image's features are the channel means of the encoder's levels 3 to 5, each
divided by its spread over the images so that no level dominates.
"""

import numpy as np
import numpy.typing as npt
import torch

from ndp_rt.export.images import GoodImages, to_network
from ndp_rt.export.models.ndpnet import REPAIRED_LEVELS, NDPNet

FloatArray = npt.NDArray[np.float32]


def nearest_to_others(descriptors: npt.NDArray[np.float64]) -> int:
    """Return the row of descriptors [n, d] nearest the mean of the other rows; the first of equals.

    With one row, that one. Columns are divided by their standard deviation; constant ones don't count.
    """
    count = len(descriptors)
    spread = descriptors.std(axis=0)
    used = descriptors[:, spread > 1e-12] / spread[spread > 1e-12]
    if count == 1 or used.shape[1] == 0:
        return 0
    mean_of_others = (used.sum(axis=0) - used) / (count - 1)
    return int(np.argmin(np.square(used - mean_of_others).sum(axis=1)))


@torch.no_grad()
def describe_images(model: NDPNet, images: GoodImages, device: str = "cpu") -> npt.NDArray[np.float64]:
    """Return the channel means of levels 3 to 5 of images [h, w, c], by the encoder in eval mode: float64 [n, d]."""
    was_training = model.encoder.training
    model.encoder.eval()
    rows = []
    for index in range(len(images)):
        features = model.encoder(torch.from_numpy(to_network([images[index]])).to(device))
        means = [features[level - 1].mean(dim=(2, 3))[0] for level in REPAIRED_LEVELS]
        rows.append(torch.cat(means).double().cpu().numpy())
    model.encoder.train(was_training)
    return np.stack(rows)

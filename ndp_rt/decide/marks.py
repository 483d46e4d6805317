"""Marks the pixels of defects, at the size of the image."""

import numpy as np

from ndp_rt.arrays import BoolArray, FloatArray
from ndp_rt.decide.contours import project_region
from ndp_rt.decide.decision import lowest_reaching
from ndp_rt.images.opencv import cv2


def mark_defects(anomaly_map: FloatArray, threshold: float, large: BoolArray | None) -> BoolArray:
    """Return where a map at the image's size shows a defect, bool [h, w].

    Args:
        anomaly_map: float32 [h, w], below the threshold where pixels do not count.
        threshold: of the decision.
        large: bool [h, w] at the map's own size, the regions that count; None: all do.
    """
    mask = np.greater_equal(anomaly_map, lowest_reaching(threshold))
    if large is None:
        return mask
    if large.shape == mask.shape:
        return np.logical_and(mask, large, out=mask)
    height, width = mask.shape
    projected = project_region(large, (0, 0), (large.shape[0], large.shape[1]), (0, 0, height, width), (height, width))
    # Scaling rounds a region's edge, which is its own all the same: what touches a large region belongs to it.
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    is_kept = np.zeros(count, np.bool_)
    is_kept[labels[projected & mask]] = True
    return np.asarray(is_kept[labels])

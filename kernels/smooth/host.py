"""smooth on the CPU: OpenCV's filters."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ndp_rt.kernels.checks import check_dense
from ndp_rt.kernels.smooth.definition import SMOOTH_SIZE_PX

FloatArray = NDArray[np.float32]


def smooth(maps: FloatArray, out: FloatArray, scratch: FloatArray) -> None:
    """Write maps after a 5 x 5 mean and a 5 x 5 median (replicated borders) to `out`.

    Args:
        maps: float32 [..., h, w], host, dense.
        out: float32 of the same shape, host, dense; overwritten; not `maps` itself.
        scratch: float32 [h, w], host, dense; overwritten.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
    """
    h, w = maps.shape[-2:]
    for name, array, shape in (("maps", maps, maps.shape), ("out", out, maps.shape), ("scratch", scratch, (h, w))):
        check_dense(name, array, shape)
    for single, smoothed in zip(maps.reshape(-1, h, w), out.reshape(-1, h, w), strict=True):
        cv2.blur(single, (SMOOTH_SIZE_PX, SMOOTH_SIZE_PX), dst=scratch, borderType=cv2.BORDER_REPLICATE)
        cv2.medianBlur(scratch, SMOOTH_SIZE_PX, dst=smoothed)

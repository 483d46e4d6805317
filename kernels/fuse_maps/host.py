"""fuse_maps on the CPU: OpenCV's bilinear resizing."""

from collections.abc import Sequence

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.kernels.checks import check_dense
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, MAP_WEIGHTS


class FuseMapsHost:
    """See `ndp_rt.kernels.op.HostForm`; it reads no asset."""

    def __init__(self, height_px: int, width_px: int) -> None:
        self._resized = np.empty((height_px, width_px), np.float32)

    def prepare(self, assets: Sequence[FloatArray]) -> None:
        """Return nothing: there is nothing to prepare."""

    def run(self, prepared: None, reads: Sequence[FloatArray], writes: Sequence[FloatArray]) -> None:
        (out,), resized = writes, self._resized
        h, w = resized.shape
        shape = (len(out), 1, h, w)
        check_dense("map", out, shape)
        for level, (name, one) in enumerate(zip(LEVEL_MAPS, reads, strict=True)):
            check_dense(name, one, (len(out), 1, h >> level, w >> level))
        np.multiply(reads[0], np.float32(MAP_WEIGHTS[0]), out=out)
        for weight, maps in zip(MAP_WEIGHTS[1:], reads[1:], strict=True):
            for single, total in zip(maps[:, 0], out[:, 0], strict=True):
                cv2.resize(single, (w, h), dst=resized, interpolation=cv2.INTER_LINEAR)
                np.multiply(resized, np.float32(weight), out=resized)
                np.add(total, resized, out=total)

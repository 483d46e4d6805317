"""nearest_sample on the CPU: OpenCV's sums of differences."""

from collections.abc import Sequence

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.kernels.checks import check_dense


class NearestSampleHost:
    """See `ndp_rt.kernels.op.HostForm`; it prepares the samples as [m, c, h w]."""

    def __init__(self, shape: tuple[int, ...], samples_shape: tuple[int, ...]) -> None:
        """Remember the shapes: [c, h, w] of an image's features, [m, c, h, w] of the samples."""
        self._shape, self._samples_shape = shape, samples_shape

    def prepare(self, assets: Sequence[FloatArray]) -> FloatArray:
        (samples,) = assets
        check_dense("samples", samples, self._samples_shape)
        flat: FloatArray = samples.reshape(*samples.shape[:2], -1).copy()
        return flat

    def run(self, prepared: FloatArray, reads: Sequence[FloatArray], writes: Sequence[FloatArray]) -> None:
        (features,), (out,) = reads, writes
        shape = (len(features), *self._shape)
        check_dense("features", features, shape)
        check_dense("out", out, shape)
        flat = (len(features), self._shape[0], -1)
        for single, difference in zip(features.reshape(flat), out.reshape(flat), strict=True):
            sums = [cv2.norm(single, sample, cv2.NORM_L1) for sample in prepared]
            cv2.absdiff(single, prepared[int(np.argmin(sums))], dst=difference)

"""nearest_patch on the CPU: NumPy, one patch after another."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ndp_rt.kernels.checks import check_dense

FloatArray = NDArray[np.float32]


class NearestHost:
    """See `ndp_rt.kernels.op.HostForm`."""

    def __init__(self, shape: tuple[int, ...], patches_shape: tuple[int, ...]) -> None:
        self._shape, self._patches_shape = shape, patches_shape
        self._gaps = np.empty(shape, np.float32)
        self._squares = np.empty(shape[1:], np.float32)

    def prepare(self, assets: Sequence[FloatArray]) -> FloatArray:
        (patches,) = assets
        check_dense("patches", patches, self._patches_shape)
        return patches.copy()

    def run(self, prepared: FloatArray, reads: Sequence[FloatArray], writes: Sequence[FloatArray]) -> None:
        (features,), (out,) = reads, writes
        check_dense("features", features, (len(features), *self._shape))
        check_dense("out", out, (len(features), 1, *self._shape[1:]))
        out.fill(np.inf)
        for single, distance in zip(features, out[:, 0], strict=True):
            for patch in prepared:
                np.subtract(single, patch[:, None, None], out=self._gaps)
                np.multiply(self._gaps, self._gaps, out=self._gaps)
                np.sum(self._gaps, axis=0, out=self._squares)
                np.minimum(distance, self._squares, out=distance)
        np.sqrt(out, out=out)

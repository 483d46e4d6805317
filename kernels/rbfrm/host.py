"""rbfrm on the CPU: BLAS."""

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import check_dense
from ndp_rt.kernels.rbfrm.definition import NORM_EPS

FloatArray = NDArray[np.float32]


class PreparedReference:
    """The reference's patches of one level and patch size K, cut and normalised once."""

    def __init__(self, reference: FloatArray, size: int) -> None:
        """Cut reference [1, c, h, w]; h and w are multiples of K = size."""
        if reference.ndim != 4 or len(reference) != 1 or reference.shape[2] % size or reference.shape[3] % size:
            raise InputError(
                f"reference is {list(reference.shape)}; [1, c, h, w] with h and w multiples of {size} is taken."
            )
        self.size = size
        self.channel_count = reference.shape[1]
        self.patches = _split(reference[0], size)  # [M, L]
        norms = np.maximum(np.linalg.norm(self.patches, axis=1, keepdims=True), NORM_EPS)
        self.unit_patches = np.ascontiguousarray((self.patches / norms).T)  # [L, M]


class Rbfrm:
    """RBFRM (eq. 3-5) against one prepared reference, with its scratch memory; one call at a time."""

    def __init__(self, reference: PreparedReference, h: int, w: int) -> None:
        """Prepare for features [n, c, h, w]; h and w are multiples of K."""
        self.reference = reference
        patch_count = (h // reference.size) * (w // reference.size)
        self._shape = (reference.channel_count, h, w)
        self._patches = np.empty((patch_count, reference.patches.shape[1]), np.float32)
        self._weights = np.empty((patch_count, reference.patches.shape[0]), np.float32)
        self._norms = np.empty((patch_count, 1), np.float32)

    def __call__(self, features: FloatArray, out: FloatArray) -> None:
        """Write the rebuilt features to out; both float32 [n, c, h, w], host, dense.

        Raises:
            InputError: a shape, dtype or layout differs from the above.
        """
        shape = (len(features), *self._shape)
        check_dense("features", features, shape)
        check_dense("out", out, shape)
        for single, rebuilt in zip(features, out, strict=True):
            self._rebuild(single, rebuilt)

    def _rebuild(self, features: FloatArray, out: FloatArray) -> None:
        patches, weights, norms, size = self._patches, self._weights, self._norms, self.reference.size
        np.copyto(patches.reshape(_cut_shape(features, size)), _cut(features, size))
        np.einsum("ij,ij->i", patches, patches, out=norms[:, 0])
        np.sqrt(norms, out=norms)
        np.maximum(norms, np.float32(NORM_EPS), out=norms)
        np.matmul(patches, self.reference.unit_patches, out=weights)
        weights /= norms
        np.exp(weights, out=weights)  # cosines are at most 1, so nothing overflows
        np.sum(weights, axis=1, keepdims=True, out=norms)
        weights /= norms
        np.matmul(weights, self.reference.patches, out=patches)
        np.copyto(_cut(out, size), patches.reshape(_cut_shape(features, size)))


def _cut_shape(features: FloatArray, size: int) -> tuple[int, ...]:
    c, h, w = features.shape
    return h // size, w // size, c, size, size


def _cut(features: FloatArray, size: int) -> FloatArray:
    """Return features [c, h, w] as a view [h/K, w/K, c, K, K]."""
    c, h, w = features.shape
    cut: FloatArray = features.reshape(c, h // size, size, w // size, size).transpose(1, 3, 0, 2, 4)
    return cut


def _split(features: FloatArray, size: int) -> FloatArray:
    """Return the patches of features [c, h, w] as a new dense array [(h/K)(w/K), c K K]."""
    cut = np.ascontiguousarray(_cut(features, size), np.float32)
    patches: FloatArray = cut.reshape(cut.shape[0] * cut.shape[1], -1)
    return patches

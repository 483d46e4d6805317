"""rbfrm on the CPU: BLAS."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.kernels.checks import check_dense
from ndp_rt.kernels.rbfrm.definition import NORM_EPS


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedReference:
    """The reference's patches of one level and patch size."""

    patches: FloatArray  # [M, L]
    unit_patches: FloatArray  # [L, M], each of length 1


class RbfrmHost:
    """See `ndp_rt.kernels.op.HostForm`; eq. 3-5."""

    def __init__(self, shape: tuple[int, ...], reference_shape: tuple[int, ...], size: int) -> None:
        """Make the scratch memory.

        Args:
            shape: [c, h, w] of an image's features; h and w multiples of K.
            reference_shape: [1, c, h', w'] of the reference's; likewise.
            size: K.
        """
        (c, h, w), (_, _, reference_h, reference_w) = shape, reference_shape
        count, length = (h // size) * (w // size), c * size * size
        self._shape, self._reference_shape, self._size = shape, reference_shape, size
        self._patches = np.empty((count, length), np.float32)
        self._weights = np.empty((count, (reference_h // size) * (reference_w // size)), np.float32)
        self._norms = np.empty((count, 1), np.float32)

    def prepare(self, assets: Sequence[FloatArray]) -> PreparedReference:
        (reference,) = assets
        check_dense("reference", reference, self._reference_shape)
        cut = np.ascontiguousarray(_cut(reference[0], self._size))
        patches = cut.reshape(cut.shape[0] * cut.shape[1], -1)
        norms = np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), NORM_EPS)
        return PreparedReference(patches=patches, unit_patches=np.ascontiguousarray((patches / norms).T))

    def run(self, prepared: PreparedReference, reads: Sequence[FloatArray], writes: Sequence[FloatArray]) -> None:
        (features,), (out,) = reads, writes
        shape = (len(features), *self._shape)
        check_dense("features", features, shape)
        check_dense("out", out, shape)
        for single, rebuilt in zip(features, out, strict=True):
            self._rebuild(prepared, single, rebuilt)

    def _rebuild(self, prepared: PreparedReference, features: FloatArray, out: FloatArray) -> None:
        patches, weights, norms = self._patches, self._weights, self._norms
        cut, cut_out = _cut(features, self._size), _cut(out, self._size)
        np.copyto(patches.reshape(cut.shape), cut)
        np.einsum("ij,ij->i", patches, patches, out=norms[:, 0])
        np.sqrt(norms, out=norms)
        np.maximum(norms, np.float32(NORM_EPS), out=norms)
        np.matmul(patches, prepared.unit_patches, out=weights)
        weights /= norms
        np.exp(weights, out=weights)  # cosines are at most 1, so nothing overflows
        np.sum(weights, axis=1, keepdims=True, out=norms)
        weights /= norms
        np.matmul(weights, prepared.patches, out=patches)
        np.copyto(cut_out, patches.reshape(cut.shape))


def _cut(features: FloatArray, size: int) -> FloatArray:
    """Return features [c, h, w] as a view [h/K, w/K, c, K, K]."""
    c, h, w = features.shape
    cut: FloatArray = features.reshape(c, h // size, size, w // size, size).transpose(1, 3, 0, 2, 4)
    return cut

"""nearest_neighbour on the CPU: BLAS finds the nearest patch, the distance from it is computed once more, exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.kernels.checks import check_dense

BLOCK_ROWS = 512  # positions at a time: with 512 patches their squares take 1 MB and stay in a core's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedPatches:
    """An asset's patches."""

    patches: FloatArray  # [m, c]
    doubled: FloatArray  # [c, m], -2 times them
    squares: FloatArray  # [m], of their lengths


class NearestNeighbourHost:
    """See `ndp_rt.kernels.op.HostForm`."""

    def __init__(self, shape: tuple[int, ...], patches_shape: tuple[int, ...]) -> None:
        """Make the scratch memory: [c, h, w] of an image's features, [m, c] of the patches."""
        c, rows = shape[0], min(BLOCK_ROWS, shape[1] * shape[2])
        self._shape, self._patches_shape = shape, patches_shape
        self._rows, self._gaps = (np.empty((rows, c), np.float32) for _ in range(2))
        self._squares = np.empty((rows, patches_shape[0]), np.float32)
        self._nearest = np.empty(rows, np.intp)

    def prepare(self, assets: Sequence[FloatArray]) -> PreparedPatches:
        (patches,) = assets
        check_dense("patches", patches, self._patches_shape)
        return PreparedPatches(
            patches=patches.copy(),
            doubled=np.ascontiguousarray(-2.0 * patches.T, np.float32),
            squares=np.square(patches.astype(np.float64)).sum(axis=1).astype(np.float32),
        )

    def run(self, prepared: PreparedPatches, reads: Sequence[FloatArray], writes: Sequence[FloatArray]) -> None:
        (features,), (out,) = reads, writes
        c, h, w = self._shape
        check_dense("features", features, (len(features), c, h, w))
        check_dense("out", out, (len(features), 1, h, w))
        for single, distances in zip(features.reshape(-1, c, h * w), out.reshape(-1, h * w), strict=True):
            for start in range(0, h * w, BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                self._find(prepared, single[:, block], distances[block])

    def _find(self, prepared: PreparedPatches, features: FloatArray, out: FloatArray) -> None:
        """Write the distances [k] of features [c, k]."""
        count = len(out)
        rows, gaps, squares = self._rows[:count], self._gaps[:count], self._squares[:count]
        nearest = self._nearest[:count]
        np.copyto(rows, features.T)
        np.matmul(rows, prepared.doubled, out=squares)
        np.add(squares, prepared.squares, out=squares)  # less the rows' own, which do not change which is least
        np.argmin(squares, axis=1, out=nearest)
        np.take(prepared.patches, nearest, axis=0, out=gaps, mode="clip")
        np.subtract(rows, gaps, out=gaps)
        np.einsum("ij,ij->i", gaps, gaps, out=out)
        np.sqrt(out, out=out)

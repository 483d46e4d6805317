"""nearest_patch as a step: features [n, c, h, w] and an asset's patches [m, c] in, distances [n, 1, h, w] out."""

from collections.abc import Sequence

import numpy as np

from ndp_rt.arrays import Array
from ndp_rt.errors import InputError
from ndp_rt.kernels.op import CudaForm, HostForm, Params, describe, is_asset_part
from ndp_rt.program.tensors import TensorSpec


class NearestPatch:
    """Takes no parameters."""

    name = "nearest_patch"
    is_product = True

    def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
        is_fit = (
            not params
            and len(reads) == 2
            and is_asset_part(reads[1].name)
            and [len(spec.shape) for spec in reads] == [4, 2]
            and reads[0].shape[1] == reads[1].shape[1]
        )
        if not is_fit:
            raise InputError(
                "op nearest_patch: expected features [n, c, h, w] and a part of an asset [m, c], no parameters, got "
                f"{describe(reads)}, {dict(params)}."
            )
        n, _, h, w = reads[0].shape
        return [TensorSpec(name="distance", shape=(n, 1, h, w), dtype=reads[0].dtype)]

    def count_flops(self, params: Params, reads: Sequence[TensorSpec]) -> int:
        (n, _, h, w), (m, c) = (spec.fixed_shape for spec in reads)
        return 2 * n * h * w * m * c

    def define(self, params: Params, *reads: Array) -> list[Array]:
        features, patches = (read.astype(np.float64) for read in reads)
        gaps = features[:, None] - patches[None, :, :, None, None]  # [n, m, c, h, w]
        return [np.sqrt(np.square(gaps).sum(axis=2)).min(axis=1, keepdims=True)]

    def make_host(self, params: Params, reads: Sequence[TensorSpec]) -> HostForm:
        from toy_memory.nearest.host import NearestHost

        self.infer(params, reads)
        return NearestHost(reads[0].with_batch(1)[1:], reads[1].with_batch(1))

    def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> CudaForm:
        from toy_memory.nearest.launch import NearestCuda

        self.infer(params, reads)
        return NearestCuda(reads[0].with_batch(1), reads[1].with_batch(1), dtype)


OP = NearestPatch()

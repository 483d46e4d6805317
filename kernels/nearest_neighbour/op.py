"""nearest_neighbour as a step: features and an asset's patches in, distances out."""

from collections.abc import Sequence
from math import prod

from ndp_rt.arrays import Array
from ndp_rt.errors import InputError
from ndp_rt.kernels.op import CudaForm, HostForm, Params, describe, is_asset_part
from ndp_rt.program.tensors import TensorSpec


class NearestNeighbourOp:
    """Reads features [n, c, h, w] and patches [m, c], a part of an asset; writes [n, 1, h, w]; no parameters."""

    name = "nearest_neighbour"
    is_product = True

    def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
        is_fit = (
            not params
            and len(reads) == 2
            and is_asset_part(reads[1].name)
            and [len(spec.shape) for spec in reads] == [4, 2]
            and None not in reads[1].shape
            and reads[0].shape[1] == reads[1].shape[1]
        )
        if not is_fit:
            raise InputError(
                "op nearest_neighbour: expected features [n, c, h, w], a part of an asset [m, c], and no parameters, "
                f"got {describe(reads)} and {dict(params) or 'none'}."
            )
        n, _, h, w = reads[0].shape
        return [TensorSpec(name="distance", shape=(n, 1, h, w), dtype=reads[0].dtype)]

    def count_flops(self, params: Params, reads: Sequence[TensorSpec]) -> int:
        (n, _, h, w), patches = (spec.fixed_shape for spec in reads)
        return 2 * n * h * w * prod(patches)

    def define(self, params: Params, *reads: Array) -> list[Array]:
        from ndp_rt.kernels.nearest_neighbour.definition import nearest_neighbour

        return [nearest_neighbour(*reads)]

    def make_host(self, params: Params, reads: Sequence[TensorSpec]) -> HostForm:
        from ndp_rt.kernels.nearest_neighbour.host import NearestNeighbourHost

        self.infer(params, reads)
        return NearestNeighbourHost(reads[0].with_batch(1)[1:], reads[1].with_batch(1))

    def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> CudaForm:
        from ndp_rt.kernels.nearest_neighbour.launch import NearestNeighbourCuda

        self.infer(params, reads)
        return NearestNeighbourCuda(reads[0].with_batch(1), reads[1].with_batch(1), dtype)


OP = NearestNeighbourOp()

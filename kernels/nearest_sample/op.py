"""nearest_sample as a step: features and an asset's samples in, the difference from the nearest of them out."""

from collections.abc import Sequence
from math import prod

from ndp_rt.arrays import Array
from ndp_rt.errors import InputError
from ndp_rt.kernels.op import CudaForm, HostForm, Params, describe, is_asset_part
from ndp_rt.program.tensors import TensorSpec


class NearestSampleOp:
    """Reads features [n, c, h, w] and samples [m, c, h, w], a part of an asset; no parameters."""

    name = "nearest_sample"
    is_product = False

    def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
        is_fit = (
            not params
            and len(reads) == 2
            and is_asset_part(reads[1].name)
            and [len(spec.shape) for spec in reads] == [4, 4]
            and None not in reads[1].shape
            and reads[0].shape[1:] == reads[1].shape[1:]
        )
        if not is_fit:
            raise InputError(
                "op nearest_sample: expected features [n, c, h, w], a part of an asset [m, c, h, w], and no "
                f"parameters, got {describe(reads)} and {dict(params) or 'none'}."
            )
        return [TensorSpec(name="difference", shape=reads[0].shape, dtype=reads[0].dtype)]

    def count_flops(self, params: Params, reads: Sequence[TensorSpec]) -> int:
        features, samples = (spec.fixed_shape for spec in reads)
        return 2 * features[0] * prod(samples)  # a subtraction and an addition

    def define(self, params: Params, *reads: Array) -> list[Array]:
        from ndp_rt.kernels.nearest_sample.definition import nearest_sample

        return [nearest_sample(*reads)]

    def make_host(self, params: Params, reads: Sequence[TensorSpec]) -> HostForm:
        from ndp_rt.kernels.nearest_sample.host import NearestSampleHost

        self.infer(params, reads)
        features, samples = (spec.with_batch(1) for spec in reads)
        return NearestSampleHost(features[1:], samples)

    def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> CudaForm:
        from ndp_rt.kernels.nearest_sample.launch import NearestSampleCuda

        self.infer(params, reads)
        return NearestSampleCuda(reads[0].with_batch(1), reads[1].with_batch(1), dtype)


OP = NearestSampleOp()

"""fuse_maps as a step: three level maps in, one map out."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from ndp_rt.arrays import Array
from ndp_rt.errors import InputError
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS
from ndp_rt.kernels.op import HostForm, Params, SmoothingForm, describe
from ndp_rt.program.tensors import TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto


class FuseMapsOp:
    """Reads float32 [n, 1, h, w], half and a quarter of it; no parameters: the weights are part of the definition."""

    name = "fuse_maps"
    cut_names = LEVEL_MAPS
    is_product = False

    def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
        n, _, h, w = reads[0].shape if reads and len(reads[0].shape) == 4 else (None, None, None, None)
        shapes = [(n, 1, h >> level, w >> level) for level in range(3)] if h and w and not (h % 4 or w % 4) else []
        if params or not shapes or [spec.shape for spec in reads] != shapes:
            raise InputError(
                "op fuse_maps: expected three maps [n, 1, h, w], half and a quarter of it, h and w multiples of 4, and "
                f"no parameters, got {describe(reads)} and {dict(params) or 'none'}."
            )
        return [TensorSpec(name="map", shape=reads[0].shape)]

    def count_flops(self, params: Params, reads: Sequence[TensorSpec]) -> int:
        # Eq. 11: two maps are interpolated, by 3 subtractions and 3 multiply-adds each, and three are weighed.
        return (2 * 3 * 3 + 3 * 2) * prod(reads[0].fixed_shape)

    def define(self, params: Params, *reads: Array) -> list[Array]:
        from ndp_rt.kernels.fuse_maps.definition import fuse_maps

        return [fuse_maps(reads)]

    def make_host(self, params: Params, reads: Sequence[TensorSpec]) -> HostForm:
        from ndp_rt.kernels.fuse_maps.host import FuseMapsHost

        self.infer(params, reads)
        _, _, h, w = reads[0].with_batch(1)
        return FuseMapsHost(h, w)

    def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> SmoothingForm:
        from ndp_rt.kernels.fuse_maps.launch import FuseMapsCuda

        self.infer(params, reads)
        return FuseMapsCuda()

    def cut(self, model: "ModelProto", output: str) -> "ModelProto":
        from ndp_rt.kernels.fuse_maps.cut import cut

        return cut(model, output)


OP = FuseMapsOp()

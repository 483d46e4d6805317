"""rbfrm as a step: features and a part of an asset in, the features rebuilt out."""

from collections.abc import Sequence

from ndp_rt.arrays import Array
from ndp_rt.errors import InputError
from ndp_rt.kernels.op import CudaForm, HostForm, Params, describe, is_asset_part, take_count
from ndp_rt.program.tensors import TensorSpec


class RbfrmOp:
    """Reads features [n, c, h, w] and the reference's [1, c, h', w'], an asset; parameter `patch_size`, K."""

    name = "rbfrm"
    is_product = True

    def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
        size = take_count(self.name, params, "patch_size")
        features, reference = reads if len(reads) == 2 else (None, None)
        if (
            features is None
            or reference is None
            or not is_asset_part(reference.name)
            or not _is_cut_evenly(features, size)
            or not _is_cut_evenly(reference, size)
            or reference.shape[:2] != (1, features.shape[1])
        ):
            raise InputError(
                f"op rbfrm: expected features [n, c, h, w] and a part of an asset [1, c, h, w], all h and w multiples "
                f"of patch_size {size}, got {describe(reads)}."
            )
        return [TensorSpec(name="rebuilt", shape=features.shape, dtype=features.dtype)]

    def count_flops(self, params: Params, reads: Sequence[TensorSpec]) -> int:
        (n, c, h, w), (_, _, reference_h, reference_w) = (spec.fixed_shape for spec in reads)
        patch_px = take_count(self.name, params, "patch_size") ** 2
        rows, columns = n * h * w // patch_px, reference_h * reference_w // patch_px
        return 2 * (2 * rows * columns * c * patch_px)  # cosines, and the patches that they weigh

    def define(self, params: Params, *reads: Array) -> list[Array]:
        from ndp_rt.kernels.rbfrm.definition import rbfrm

        features, reference = reads
        return [rbfrm(features, reference, take_count(self.name, params, "patch_size"))]

    def make_host(self, params: Params, reads: Sequence[TensorSpec]) -> HostForm:
        from ndp_rt.kernels.rbfrm.host import RbfrmHost

        self.infer(params, reads)
        features, reference = (spec.with_batch(1) for spec in reads)
        return RbfrmHost(features[1:], reference, params["patch_size"])

    def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> CudaForm:
        from ndp_rt.kernels.rbfrm.launch import RbfrmCuda

        self.infer(params, reads)
        features, reference = (spec.with_batch(1) for spec in reads)
        return RbfrmCuda(features, reference, params["patch_size"], dtype)


def _is_cut_evenly(spec: TensorSpec, size: int) -> bool:
    return len(spec.shape) == 4 and all(side is not None and side % size == 0 for side in spec.shape[2:])


OP = RbfrmOp()

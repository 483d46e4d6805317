"""fuse_maps: the weighted bilinear sum of the three level maps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import DeviceArray, check_apart, check_array, check_image_count, get_address
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.op import SmoothForm
from ndp_rt.program.tensors import TensorSpec

FUSE_MAPS = Variant(file="fuse_maps/fuse_maps.cu", entry="fuse_maps", max_registers=64)
VARIANTS = (FUSE_MAPS,)
BLOCK_THREADS = 256
PIXELS_PER_THREAD = 4


class FuseMapsCuda:
    """See `ndp_rt.kernels.op.SmoothingForm`: `smooth_levels` takes its work along, this is for the map itself."""

    prepared: ClassVar[Mapping[str, TensorSpec]] = {}
    scratch_bytes = 0

    def prepare(
        self, kernels: KernelSet, assets: Sequence[DeviceArray], prepared: Mapping[str, DeviceArray], *, stream: Any
    ) -> None:
        """Do nothing: it reads no asset."""

    def enqueue(
        self,
        kernels: KernelSet,
        reads: Sequence[DeviceArray],
        prepared: Mapping[str, DeviceArray],
        writes: Sequence[DeviceArray],
        scratch: DeviceArray | None,
        *,
        stream: Any,
    ) -> None:
        (out,) = writes
        check_levels(reads, "map", out)
        n, _, h, w = out.shape
        for name, array in ((LEVEL_MAPS[0], reads[0]), ("map", out)):
            check_array(name, array, "float32", (n, 1, h, w), alignment_bytes=16)
        kernel = kernels.function(FUSE_MAPS.file, FUSE_MAPS.entry, FUSE_MAPS.defines)
        grid = (-(-h * w // (BLOCK_THREADS * PIXELS_PER_THREAD)), n)
        args = (*(get_address(array) for array in (*reads, out)), np.int32(h), np.int32(w))
        kernel(grid, (BLOCK_THREADS,), args, stream=stream)

    def with_smoothing(self, size_px: int) -> SmoothForm:
        from ndp_rt.kernels.smooth.launch import Smoothing

        return Smoothing(size_px=size_px, is_of_levels=True)


def check_levels(levels: Sequence[DeviceArray], name: str, out: DeviceArray) -> None:
    """Check three level maps, and an output `name` of the first one's size.

    Raises:
        InputError: a shape, dtype or layout is another, or the output shares memory with a map.
    """
    check_array(LEVEL_MAPS[0], levels[0], "float32", (None, 1, None, None))
    n, _, h, w = levels[0].shape
    check_image_count(LEVEL_MAPS[0], n)
    if h % 4 or w % 4:
        raise InputError(
            f"am1: expected h and w multiples of 4, as am2 and am3 are 2 and 4 times smaller, got {h} x {w}."
        )
    check_array(name, out, "float32", (n, 1, h, w))
    for level, (level_name, array) in enumerate(zip(LEVEL_MAPS, levels, strict=True)):
        check_array(level_name, array, "float32", (n, 1, h >> level, w >> level))
        check_apart(name, out, level_name, array)

"""fuse_maps: the weighted bilinear sum of the three level maps."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import DeviceArray, check_apart, check_array, check_image_count, get_address
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.op import SmoothForm
from ndp_rt.program.tensors import TensorSpec

FUSE_MAPS = Variant(file="fuse_maps/fuse_maps.cu", entry="fuse_maps", max_registers=64)
VARIANTS = (FUSE_MAPS,)
BLOCK_THREADS = 256
PIXELS_PER_THREAD = 4


def fuse_maps(
    kernels: KernelSet, am1: DeviceArray, am2: DeviceArray, am3: DeviceArray, out: DeviceArray, *, stream: Any
) -> None:
    """Write AM_final, not yet smoothed, to `out` (eq. 11): bilinear, half-pixel centres, borders held.

    An inspection does not need it, `smooth_levels` does: this is for looking at the map itself.

    Args:
        kernels: where the kernel comes from.
        am1: float32 [n, 1, h, w], device, dense; h and w multiples of 4.
        am2: float32 [n, 1, h/2, w/2], device, dense.
        am3: float32 [n, 1, h/4, w/4], device, dense.
        out: float32 [n, 1, h, w], device, dense; overwritten, never read; apart from the others.
        stream: the CuPy stream that owns `out`; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: the launch is refused.
    """
    check_levels(am1, am2, am3, out)
    n, _, h, w = am1.shape
    for name, array in (("am1", am1), ("out", out)):
        check_array(name, array, "float32", (n, 1, h, w), alignment_bytes=16)
    kernel = kernels.function(FUSE_MAPS.file, FUSE_MAPS.entry, FUSE_MAPS.defines)
    grid = (-(-h * w // (BLOCK_THREADS * PIXELS_PER_THREAD)), n)
    args = (*(get_address(array) for array in (am1, am2, am3, out)), np.int32(h), np.int32(w))
    kernel(grid, (BLOCK_THREADS,), args, stream=stream)


def check_levels(am1: DeviceArray, am2: DeviceArray, am3: DeviceArray, out: DeviceArray) -> None:
    """Check three level maps and an output of the first one's size.

    Raises:
        InputError: a shape, dtype or layout is another, or the output shares memory with a map.
    """
    check_array("am1", am1, "float32", (None, 1, None, None))
    n, _, h, w = am1.shape
    check_image_count("am1", n)
    if h % 4 or w % 4:
        raise InputError(
            f"am1: expected h and w multiples of 4, as am2 and am3 are 2 and 4 times smaller, got {h} x {w}."
        )
    check_array("am2", am2, "float32", (n, 1, h // 2, w // 2))
    check_array("am3", am3, "float32", (n, 1, h // 4, w // 4))
    check_array("out", out, "float32", (n, 1, h, w))
    for name, level in (("am1", am1), ("am2", am2), ("am3", am3)):
        check_apart("out", out, name, level)


class FuseMapsCuda:
    """See `ndp_rt.kernels.op.SmoothingForm`."""

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
        am1, am2, am3 = reads
        fuse_maps(kernels, am1, am2, am3, writes[0], stream=stream)

    def with_smoothing(self, size_px: int) -> SmoothForm:
        from ndp_rt.kernels.smooth.launch import Smoothing, smooth_levels

        return Smoothing(launch=smooth_levels, size_px=size_px)

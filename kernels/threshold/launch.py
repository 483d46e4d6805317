"""threshold: which pixels of a map reach a limit."""

from typing import Any

import numpy as np

from ndp_rt.kernels.checks import DeviceArray, check_array, check_image_count, get_address
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.load import KernelSet

THRESHOLD = Variant(file="threshold/threshold.cu", entry="threshold", max_registers=40)
VARIANTS = (THRESHOLD,)
BLOCK_THREADS = 256
PIXELS_PER_THREAD = 4


def threshold(kernels: KernelSet, maps: DeviceArray, limits: DeviceArray, mask: DeviceArray, *, stream: Any) -> None:
    """Write 1 to `mask` where a map reaches the limit of its image, and 0 elsewhere and at NaN.

    The limits lie on the device, so that a captured graph need not be captured again when they change. For the same
    decision as the host's, a limit is `ndp_rt.decide.regions.lowest_reaching(threshold)`.

    Args:
        kernels: where the kernel comes from.
        maps: float32 [n, 1, h, w], device, dense.
        limits: float32 [n], device, dense.
        mask: uint8 [n, h, w], device, dense; overwritten, never read.
        stream: the CuPy stream that owns `mask`; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: the launch is refused.
    """
    check_array("maps", maps, "float32", (None, 1, None, None))
    n, _, h, w = maps.shape
    is_vectored = h * w % PIXELS_PER_THREAD == 0
    check_image_count("maps", n)
    check_array("maps", maps, "float32", (n, 1, h, w), alignment_bytes=16 if is_vectored else 4)
    check_array("limits", limits, "float32", (n,))
    check_array("mask", mask, "uint8", (n, h, w), alignment_bytes=4 if is_vectored else 1)
    kernel = kernels.function(THRESHOLD.file, THRESHOLD.entry, THRESHOLD.defines)
    grid = (-(-h * w // (BLOCK_THREADS * PIXELS_PER_THREAD)), n)
    args = (get_address(maps), get_address(limits), get_address(mask), np.uint32(h * w))
    kernel(grid, (BLOCK_THREADS,), args, stream=stream)

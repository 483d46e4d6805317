"""top_k_mean: the mean of each image's k largest values."""

from typing import Any

import numpy as np

from ndp_rt.kernels.checks import DeviceArray, check_array, get_address
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.top_k_mean.host import check_k

TOP_K_MEAN = Variant(file="top_k_mean/top_k_mean.cu", entry="top_k_mean", max_registers=64)
VARIANTS = (TOP_K_MEAN,)
BLOCK_THREADS = 512


def top_k_mean(kernels: KernelSet, values: DeviceArray, k: int, means: DeviceArray, *, stream: Any) -> None:
    """Write the mean of each image's k largest values to `means`; NaN where a value is NaN or infinite.

    The same values give the same bits, whatever their order.

    Args:
        kernels: where the kernel comes from.
        values: float32 [n, m], device, dense: whole smoothed maps.
        k: 1 to m.
        means: float32 [n], device, dense; overwritten, never read.
        stream: the CuPy stream that owns `means`; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above, or k.
        DeviceError: the launch is refused.
    """
    check_array("values", values, "float32", (None, None))
    n, m = values.shape
    check_k(k, m)
    check_array("means", means, "float32", (n,))
    kernel = kernels.function(TOP_K_MEAN.file, TOP_K_MEAN.entry, TOP_K_MEAN.defines)
    args = (get_address(values), get_address(means), np.uint32(m), np.uint32(k))
    kernel((n,), (BLOCK_THREADS,), args, stream=stream)

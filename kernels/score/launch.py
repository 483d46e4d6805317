"""score: the largest value of each image."""

from typing import Any

import numpy as np

from ndp_rt.kernels.checks import DeviceArray, check_array, get_address
from ndp_rt.kernels.flags import Variant
from ndp_rt.kernels.load import KernelSet

SCORE = Variant(file="score/score.cu", entry="score", max_registers=40)
VARIANTS = (SCORE,)
BLOCK_THREADS = 256


def score(kernels: KernelSet, values: DeviceArray, scores: DeviceArray, *, stream: Any) -> None:
    """Write the largest value of each image to `scores`; NaN where a value is NaN or infinite, so that it is refused.

    The same values give the same bits, whatever their order.

    Args:
        kernels: where the kernel comes from.
        values: float32 [n, m], device, dense: the tile maxima that `smooth` wrote, or whole smoothed maps.
        scores: float32 [n], device, dense; overwritten, never read.
        stream: the CuPy stream that owns `scores`; the call returns before it finishes.

    Raises:
        InputError: a shape, dtype or layout differs from the above.
        DeviceError: the launch is refused.
    """
    check_array("values", values, "float32", (None, None))
    n, m = values.shape
    check_array("scores", scores, "float32", (n,))
    kernel = kernels.function(SCORE.file, SCORE.entry, SCORE.defines)
    kernel((n,), (BLOCK_THREADS,), (get_address(values), get_address(scores), np.uint32(m)), stream=stream)

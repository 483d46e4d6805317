"""top_k_mean on the CPU: NumPy's selection."""

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import InputError
from ndp_rt.kernels.checks import check_dense


def top_k_mean(values: FloatArray, k: int, out: FloatArray, scratch: FloatArray) -> None:
    """Write the mean of each image's k largest values to `out`; NaN where a value is NaN or infinite.

    The same values give the same bits, whatever their order.

    Args:
        values: float32 [n, m], host, dense.
        k: 1 to m.
        out: float32 [n], host, dense; overwritten.
        scratch: float32 [m], host, dense; overwritten.

    Raises:
        InputError: a shape, dtype or layout differs from the above, or k.
    """
    n, m = values.shape if values.ndim == 2 else (-1, -1)
    for name, array, shape in (("values", values, (n, m)), ("out", out, (n,)), ("scratch", scratch, (m,))):
        check_dense(name, array, shape)
    check_k(k, m)
    largest = scratch[m - k :]
    for index, row in enumerate(values):
        if not (np.isfinite(row.max()) and np.isfinite(row.min())):
            out[index] = np.nan
            continue
        np.copyto(scratch, row)
        scratch.partition(m - k)
        largest.sort()  # the sum's order, whatever the order of values
        out[index] = largest.sum(dtype=np.float64) / k


def check_k(k: int, count: int) -> None:
    """Check how many values the mean is of.

    Raises:
        InputError: none, or more than there are.
    """
    if not 1 <= k <= count:
        raise InputError(f"k: expected 1 to {count}, the number of values, got {k}.")

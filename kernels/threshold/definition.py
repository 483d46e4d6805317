"""The definition of threshold."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def threshold(maps: Array, limits: Array) -> NDArray[np.uint8]:
    """Return 1 where maps [n, ..., h, w] reach the limit of their image, limits [n], and 0 elsewhere and at NaN."""
    return (maps >= limits.reshape(-1, *[1] * (maps.ndim - 1))).astype(np.uint8)

"""What an inspection returns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_rt.decide.regions import Defect


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The outcome of one inspection; the caller owns it, arrays included, and the inspector keeps no part of it.

    `score` is the maximum of the smoothed map at the network's own size, and `is_defect` says `score >= threshold`;
    then, and only then, `defects` has entries.
    """

    score: float
    threshold: float
    is_defect: bool
    anomaly_map: NDArray[np.float32]  # [h, w] at the image's own size, smoothed
    defects: tuple[Defect, ...]  # highest peak first
    timings_ms: Mapping[str, float]  # preprocess, engine, postprocess, total; staged plans add their stages
    reconstruction: NDArray[np.float32] | None = None  # [h, w, 3], 0 to 1, at the network's size, where asked for

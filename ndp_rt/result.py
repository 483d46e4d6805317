"""The result of an inspection."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import BoolArray
from ndp_rt.decide.marks import mark_defects
from ndp_rt.decide.regions import Defect
from ndp_rt.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What one inspection found. The caller owns it, arrays included; the inspector keeps no part of it.

    Attributes:
        score: the smoothed map's largest value at the network's own size, or what the bundle's score rule makes of it.
        threshold: what the score was compared with.
        is_defect: `score >= threshold`.
        anomaly_map: [h, w] at the image's own size, smoothed; 0 where an ignore mask says that pixels do not count.
        defects: the regions that reach `map_threshold` and count, highest peak first; none unless `is_defect`.
        timings_ms: preprocess, engine, postprocess and total; plan `staged` adds its stages.
        reconstruction: [h, w, 3], 0 to 1, at the network's size, where it was asked for.
        large: bool [h, w] at the network's size, the regions that count; None: all do.
        map_threshold: what the map reaches in defects: `threshold`, unless the model gives its score itself.

    Examples:
        >>> from ndp_rt import Inspector, read_image
        >>> with Inspector.open("tiles.ndp") as inspector:
        ...     result = inspector.inspect(read_image("new/piece.png"))
        >>> result.is_defect == (result.score >= result.threshold)
        True
        >>> result.anomaly_map.shape == read_image("new/piece.png").shape[:2]
        True
    """

    score: float
    threshold: float
    is_defect: bool
    anomaly_map: NDArray[np.float32]
    defects: tuple[Defect, ...]
    timings_ms: Mapping[str, float]
    reconstruction: NDArray[np.float32] | None = None
    large: BoolArray | None = None
    map_threshold: float = math.nan  # becomes `threshold`

    def __post_init__(self) -> None:
        if math.isnan(self.map_threshold):
            object.__setattr__(self, "map_threshold", self.threshold)

    def make_mask(self) -> BoolArray:
        """Return where the defects are, bool [h, w] at the image's own size.

        Raises:
            InputError: the map was not made.
        """
        if not self.anomaly_map.size:
            raise InputError("mask: expected a result with a map, got one without. Inspect without an empty map_out.")
        if not self.is_defect:  # whatever the map's scaling rounds to
            return np.zeros(self.anomaly_map.shape, np.bool_)
        return mark_defects(self.anomaly_map, self.map_threshold, self.large)

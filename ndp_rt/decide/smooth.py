"""From the network's map to score, decision, defects and the map that the caller gets."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ndp_rt.decide.decision import is_defective, not_finite
from ndp_rt.decide.regions import Defect, list_defects
from ndp_rt.kernels.smooth import host

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What the postprocessing finds in one map."""

    score: float
    is_defect: bool
    anomaly_map: FloatArray
    defects: tuple[Defect, ...]


class Smoother:
    """Smooths maps [h, w] of one size into memory of its own; one call at a time."""

    def __init__(self, height_px: int, width_px: int) -> None:
        self._smoothed = np.empty((height_px, width_px), np.float32)
        self._scratch = np.empty((height_px, width_px), np.float32)

    def __call__(self, raw_map: FloatArray) -> FloatArray:
        """Return the smoothed map in memory that the next call overwrites.

        Raises:
            EngineError: the map holds NaN or infinity.
        """
        if not np.isfinite(np.sum(raw_map)):  # one NaN or infinity makes the sum one
            raise not_finite()
        host.smooth(raw_map, self._smoothed, self._scratch)
        return self._smoothed


class Judge:
    """Decides on smoothed maps by one threshold."""

    def __init__(self, threshold: float, mm_per_pixel: float | None) -> None:
        self.threshold = threshold
        self.mm_per_pixel = mm_per_pixel

    def judge(
        self, smoothed: FloatArray, height_px: int, width_px: int, map_out: FloatArray | None = None
    ) -> Judgement:
        """Score, decide and list defects.

        Args:
            smoothed: float32 [h, w], dense: the smoothed map at the network's size; not kept.
            height_px: rows of the caller's image.
            width_px: columns of the caller's image.
            map_out: float32 [height_px, width_px] with dense rows, to write the map to; empty: none is made; None: a
                new array.
        """
        anomaly_map = np.empty((height_px, width_px), np.float32) if map_out is None else map_out
        if anomaly_map.shape == smoothed.shape:
            np.copyto(anomaly_map, smoothed)
        elif anomaly_map.size:
            cv2.resize(smoothed, (width_px, height_px), dst=anomaly_map, interpolation=cv2.INTER_LINEAR)
        return self._decide(smoothed, anomaly_map, height_px, width_px)

    def decide(self, anomaly_map: FloatArray) -> Judgement:
        """Score and decide on a smoothed map [h, w] that is at the size of the caller's image already."""
        return self._decide(anomaly_map, anomaly_map, *anomaly_map.shape)

    def _decide(self, smoothed: FloatArray, anomaly_map: FloatArray, height_px: int, width_px: int) -> Judgement:
        score = float(np.max(smoothed))
        decided = is_defective(score, self.threshold)
        defects = list_defects(smoothed, self.threshold, height_px, width_px, self.mm_per_pixel) if decided else ()
        return Judgement(score=score, is_defect=decided, anomaly_map=anomaly_map, defects=defects)

"""What an inspection returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ndp_rt.defects import Defect


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


@dataclass(kw_only=True)
class Times:
    """The times of one inspection while it is made."""

    preprocess_ms: float = 0.0
    engine_ms: float = 0.0
    postprocess_ms: float = 0.0
    total_ms: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)

    def share(self, count: int) -> "Times":
        """Return one image's share of the engine's time for `count` images."""
        stages_ms = {name: value / count for name, value in self.stages_ms.items()}
        return Times(engine_ms=self.engine_ms / count, stages_ms=stages_ms)

    def add_run(self, run: "Times") -> None:
        """Add the engine's times of another batch."""
        self.engine_ms += run.engine_ms
        for name, value in run.stages_ms.items():
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + value

    def to_mapping(self) -> dict[str, float]:
        """Return the times as `Result.timings_ms` has them."""
        parts = {"preprocess": self.preprocess_ms, "engine": self.engine_ms, "postprocess": self.postprocess_ms}
        return {**parts, "total": self.total_ms, **self.stages_ms}

"""Times of the parts of an inspection."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Times:
    """The times of one inspection while it is made."""

    preprocess_ms: float = 0.0
    engine_ms: float = 0.0
    postprocess_ms: float = 0.0
    total_ms: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)

    def add_run(self, run: "Times") -> None:
        """Add the engine's times of another batch."""
        self.engine_ms += run.engine_ms
        for name, value in run.stages_ms.items():
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + value

    def to_mapping(self) -> dict[str, float]:
        """Return the times as `Result.timings_ms` has them."""
        parts = {"preprocess": self.preprocess_ms, "engine": self.engine_ms, "postprocess": self.postprocess_ms}
        return {**parts, "total": self.total_ms, **self.stages_ms}

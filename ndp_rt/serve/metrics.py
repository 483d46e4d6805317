"""What the service counts, for Prometheus."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ndp_rt.result import Result

MODEL = ("model", "version")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SHARES = tuple(share / 10 for share in range(1, 21))  # of the threshold
STAGES = ("queue", "preprocess", "engine", "postprocess", "total")
DRIFT_COUNT = 256  # the last results that drift is measured on


class Metrics:
    """The counters of a service, and their text."""

    def __init__(self) -> None:
        """Make them, all at 0."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ndp_rt_requests", "Requests by what became of them.", (*MODEL, "outcome"), registry=self.registry
        )
        self.images = Counter(
            "ndp_rt_images", "Images that were inspected.", (*MODEL, "decision"), registry=self.registry
        )
        self.waiting = Gauge("ndp_rt_waiting_images", "Images that are decoded or wait.", MODEL, registry=self.registry)
        self.seconds = Histogram(
            "ndp_rt_stage_seconds",
            "Time of an image in each stage.",
            (*MODEL, "stage"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.scores = Histogram(
            "ndp_rt_score_share", "Scores as shares of the threshold.", MODEL, buckets=SHARES, registry=self.registry
        )
        self.threshold = Gauge("ndp_rt_threshold", "The threshold that decides.", MODEL, registry=self.registry)
        self.drift = Gauge(
            "ndp_rt_score_drift",
            f"Median of the last {DRIFT_COUNT} scores, less that of the bundle's calibration images, in their spreads.",
            MODEL,
            registry=self.registry,
        )


class ModelMeter:
    """Counts what becomes of one model's requests; see `ndp_rt.serve.queue.Meter`."""

    def __init__(
        self, metrics: Metrics, name: str, version: str, threshold: float, calibration: Sequence[float]
    ) -> None:
        """Begin.

        Args:
            metrics: that it counts in.
            name: of the model.
            version: of the model.
            threshold: that decides.
            calibration: scores of the bundle's calibration images; fewer than two: no drift is told.
        """
        self._metrics, self._labels = metrics, (name, version)
        self._last: deque[float] = deque(maxlen=DRIFT_COUNT)
        self._centre, self._spread = describe_scores(calibration)
        self._threshold = threshold
        metrics.threshold.labels(*self._labels).set(threshold)
        self.set_waiting(0)

    def set_waiting(self, image_count: int) -> None:
        """See `Meter`."""
        self._metrics.waiting.labels(*self._labels).set(image_count)

    def count_request(self, outcome: str) -> None:
        """Count a request: "ok", or one of `ndp_rt.serve.refusals.REASONS`."""
        self._metrics.requests.labels(*self._labels, outcome).inc()

    def add_results(self, results: Sequence[Result], waited_s: float) -> None:
        """See `Meter`."""
        metrics, labels = self._metrics, self._labels
        for result in results:
            metrics.images.labels(*labels, "defect" if result.is_defect else "good").inc()
            stages = {"queue": waited_s} | {name: value * 1e-3 for name, value in result.timings_ms.items()}
            for stage in STAGES:
                if stage in stages:
                    metrics.seconds.labels(*labels, stage).observe(stages[stage])
            if self._threshold > 0:
                metrics.scores.labels(*labels).observe(result.score / self._threshold)
            self._last.append(result.score)
        if self._spread > 0:
            metrics.drift.labels(*labels).set((float(np.median(self._last)) - self._centre) / self._spread)


def describe_scores(scores: Sequence[float]) -> tuple[float, float]:
    """Return the median of scores and their spread, 1.4826 times the median distance from it; 0 for fewer than two."""
    if len(scores) < 2:
        return 0.0, 0.0
    centre = float(np.median(scores))
    return centre, 1.4826 * float(np.median(np.abs(np.asarray(scores) - centre)))

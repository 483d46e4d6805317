"""What the service counts, for Prometheus."""

import time
from collections import deque
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ndp_rt.images.checks import Image
from ndp_rt.result import Result
from ndp_rt.serve.drift import LAST_COUNT, Drift
from ndp_rt.serve.history import History
from ndp_rt.serve.monitor import ModelWatch
from ndp_rt.serve.queue import InspectionQueue

MODEL = ("model", "version")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SHARES = tuple(share / 10 for share in range(1, 21))  # of the threshold
STAGES = ("queue", "preprocess", "engine", "postprocess", "total")


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
        self.drift, self.brightness = (
            Gauge(
                f"ndp_rt_{name}_drift",
                f"Median of the last {LAST_COUNT} {what}, less that of the calibration images (without them, of the "
                "service's first ones), in their spreads.",
                MODEL,
                registry=self.registry,
            )
            for name, what in (("score", "scores"), ("brightness", "mean values that were measured"))
        )


class ModelMeter:
    """Counts what becomes of one model's requests; see `ndp_rt.serve.queue.Meter`."""

    def __init__(
        self,
        metrics: Metrics,
        name: str,
        version: str,
        threshold: float,
        scores: Drift,
        history: History,
        watch: ModelWatch,
    ) -> None:
        """Take what it counts for.

        Args:
            metrics: that it counts in.
            name: of the model.
            version: of the model.
            threshold: that decides.
            scores: that results' scores go to.
            history: that results go to.
            watch: that images go to.
        """
        self._metrics = metrics
        self._requests, labels = metrics.requests, (name, version)
        self._labels = labels
        self._history, self._watch, self._threshold, self._scores = history, watch, threshold, scores
        # Each is looked up once: to find them for every image took 40 us.
        self._outcomes: dict[str, Counter] = {}
        self._waiting = metrics.waiting.labels(*labels)
        self._images = [metrics.images.labels(*labels, word) for word in ("good", "defect")]
        self._seconds = {stage: metrics.seconds.labels(*labels, stage) for stage in STAGES}
        self._shares = metrics.scores.labels(*labels)
        self._found: deque[tuple[Sequence[Image], Sequence[Result], float, float]] = deque()

    def begin(self, queue: InspectionQueue) -> None:
        """Show this model's queue, threshold and drifts from now on; a former one's results no longer count in them."""
        self._waiting.set_function(lambda: queue.waiting_count)
        self._metrics.threshold.labels(*self._labels).set(self._threshold)
        self._metrics.drift.labels(*self._labels).set_function(self._scores.measure)
        self._metrics.brightness.labels(*self._labels).set_function(self._watch.brightness.measure)
        self._history.begin(self._threshold, self._scores, self._watch.brightness)

    def count_request(self, outcome: str) -> None:
        """Count a request: "ok", or one of `ndp_rt.serve.refusals.REASONS`."""
        if outcome not in self._outcomes:
            self._outcomes[outcome] = self._requests.labels(*self._labels, outcome)
        self._outcomes[outcome].inc()

    @property
    def wants_map(self) -> bool:
        """See `Meter`."""
        return self._watch.wants_map

    def add_results(self, images: Sequence[Image], results: Sequence[Result], waited_s: float) -> None:
        """See `Meter`; they are counted by `count_results`."""
        self._found.append((images, results, waited_s, time.time()))

    def count_results(self) -> None:
        """Count what was added; called by one thread, after the answers were sent: before, it took 0.15 ms of each."""
        while self._found:
            self._count(*self._found.popleft())

    def _count(self, images: Sequence[Image], results: Sequence[Result], waited_s: float, time_s: float) -> None:
        seconds = self._seconds
        for result in results:
            self._images[result.is_defect].inc()
            seconds["queue"].observe(waited_s)
            for stage, value_ms in result.timings_ms.items():
                if stage in seconds:
                    seconds[stage].observe(value_ms * 1e-3)
            if self._threshold > 0:
                self._shares.observe(result.score / self._threshold)
            self._scores.add(result.score)
        first = self._history.add(results, waited_s, time_s)
        self._watch.take(images, results, first, waited_s)

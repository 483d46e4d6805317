"""MLPerf's scenarios, as they are measured here: by their names and percentiles, not under its rules.

A result under MLPerf's name needs its load generator, its networks and its minimum durations; these are the same
questions, asked of an inspector.
"""

from dataclasses import dataclass

import numpy as np

MULTI_STREAM_IMAGE_COUNT = 8  # of MLPerf's multi-stream query


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One scenario. `share` is the percentile that MLPerf takes of the queries' latencies; None: throughput counts."""

    name: str
    share: float | None
    what: str
    method: str = "decide"  # of `Timed`

    def find_query_size(self, batch: int, image_ms: float, turn_s: float) -> int:
        """Return how many images a query has, where one image takes about `image_ms` and a turn `turn_s`."""
        if self.name == "single-stream":
            return batch
        if self.name == "multi-stream":
            return MULTI_STREAM_IMAGE_COUNT
        if self.name == "offline":
            return batch * max(4, round(turn_s * 1e3 / max(image_ms, 1e-3) / batch))
        return 1


SCENARIOS = {
    one.name: one
    for one in (
        Scenario(
            name="single-stream",
            share=0.9,
            what="one query after another; a query is one batch, and MLPerf's batch is 1",
        ),
        Scenario(
            name="multi-stream",
            share=0.99,
            what=f"one query of {MULTI_STREAM_IMAGE_COUNT} images after another, in batches of the given size",
        ),
        Scenario(
            name="offline",
            share=None,
            what="all images are there at once; the time is a query's over its images",
            method="decide_all",
        ),
        Scenario(
            name="server",
            share=0.99,
            what="images arrive at random moments (Poisson) at the highest rate that keeps the latency bound; "
            "those that wait together share a batch of up to the given size",
        ),
    )
}


def draw_arrivals(rate_per_s: float, seconds: float, seed: int) -> tuple[float, ...]:
    """Return moments from 0 on, in seconds, of a Poisson process; one at least."""
    rng = np.random.default_rng(seed)
    count = max(1, round(rate_per_s * seconds))
    return tuple(float(moment) for moment in np.cumsum(rng.exponential(1 / rate_per_s, count)))

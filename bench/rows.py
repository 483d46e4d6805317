"""A benchmark's rows: one that is timed with one batch size in one scenario; docs/bench-record.md has the fields."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.latency import bound_percentile, compare_pairs, summarise
from ndp_rt.bench.measure import Series
from ndp_rt.bench.scenarios import Scenario
from ndp_rt.bench.timed.process import TimedProcess
from ndp_rt.errors import MissingExtraError
from ndp_rt.evaluate.record import Record

KEPT_COUNT = 20_000  # latencies of a row in a record


def make_row(
    one: TimedProcess, batch: int, scenario: Scenario, series: Series, base: tuple[str, Series] | None
) -> Record:
    """Return a row with everything that comes from the times, and the check.

    Args:
        one: opened and checked.
        batch: of the engine.
        scenario: in which it was timed.
        series: its turns, at least one.
        base: name and series of the row that this one is compared with, from the same rounds; None: itself.
    """
    spec, opened, latencies = one.spec, one.opened, series.latencies_ms
    check = opened.checks[batch]
    row: Record = {
        "name": spec.name,
        "contender": spec.word,
        "kind": spec.kind,
        "backend": opened.backend,
        "precision": spec.precision,
        "plan": opened.plan,
        "device": spec.device,
        "threads": spec.threads,
        "batch": batch,
        "scenario": scenario.name,
        "latency": summarise(latencies),
        "latencies_ms": [round(value, 4) for value in thin(latencies)],
        "thinned": len(latencies) > KEPT_COUNT,
        "round_p50_ms": [round(value, 4) for value in series.round_p50_ms.values()],
        "images_per_s": series.images_per_s,
        "warm_up": dataclasses.asdict(series.warm_up),
        "parts_ms": series.parts_ms,
        "check": dataclasses.asdict(check),
        "facts": dict(opened.facts),
        "notes": list(opened.notes),
        "warnings": [],
    }
    if scenario.share is not None:
        with contextlib.suppress(MissingExtraError):  # `make gpu-check` does without SciPy
            row["percentile"] = bound_percentile(latencies, scenario.share).to_json()
    if base is not None:
        row["ratio"] = compare_series(series, *base)
    return row


def compare_series(series: Series, base_name: str, base: Series) -> Mapping[str, Any]:
    """Return how many times as long a query takes as the base's, over the rounds that both took part in."""
    own, other = series.round_p50_ms, base.round_p50_ms
    shared = sorted(own.keys() & other.keys())
    ratio = compare_pairs([own[index] for index in shared], [other[index] for index in shared])
    return {"to": base_name, **dataclasses.asdict(ratio), "round_count": len(shared)}


def thin(latencies: Sequence[float]) -> Sequence[float]:
    """Return at most KEPT_COUNT of the latencies, evenly chosen, in order."""
    if len(latencies) <= KEPT_COUNT:
        return latencies
    return [latencies[index] for index in np.linspace(0, len(latencies) - 1, KEPT_COUNT).astype(int)]

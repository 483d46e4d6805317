"""What is shown of a model that is loaded again is its own."""

import math
from typing import Any

import numpy as np

from ndp_rt import Result
from ndp_rt.bundle import open_bundle
from ndp_rt.cli.demo_page import BUNDLE
from ndp_rt.serve.drift import FIRST_COUNT, Drift
from ndp_rt.serve.history import History
from ndp_rt.serve.metrics import Metrics, ModelMeter
from ndp_rt.serve.monitor import ModelWatch, Monitor

NOTHING = np.zeros((0, 0), np.float32)


class OfBundle:
    bundle = open_bundle(BUNDLE)


class Queue:
    waiting_count = 0


def test_a_model_that_is_loaded_again_shows_its_own_results() -> None:
    monitor, metrics, history = Monitor(), Metrics(), History()
    inspector: Any = OfBundle()
    queue: Any = Queue()

    def make(threshold: float) -> ModelMeter:
        watch = ModelWatch(monitor, history, inspector, Drift(()))
        return ModelMeter(metrics, "m", "1", threshold, Drift(()), history, watch)

    def read(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"ndp_rt_{name}", {"model": "m", "version": "1"})

    def add(meter: ModelMeter, score: float) -> None:
        decided = {"threshold": 0.6, "is_defect": False, "defects": (), "timings_ms": {"total": 1.0}}
        one: Any = Result(score=score, anomaly_map=NOTHING, **decided)
        meter.add_results([np.zeros((4, 4), np.uint8)], [one], 0.0)
        meter.count_results()

    old = make(0.6)
    old.begin(queue)
    new = make(0.9)
    assert read("threshold") == history.threshold == 0.6  # until it takes over: it may fail
    new.begin(queue)
    for _ in range(FIRST_COUNT):
        add(old, 0.1)  # what the former one had accepted
    assert read("threshold") == history.threshold == 0.9
    assert history.scores.list_values() == ([], []) and len(history.describe(0, 0)["rows"]) == FIRST_COUNT
    for number in range(FIRST_COUNT):
        drift = read("score_drift")
        assert drift is not None and math.isnan(drift)
        add(new, 0.1 * (number % 2))
    assert read("score_drift") == 0

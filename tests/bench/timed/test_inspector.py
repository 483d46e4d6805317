"""How our inspector tells of images that are inspected beside each other."""

import time
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bench.timed.inspector import TimedInspector, share_out
from ndp_rt.bench.timed.spec import OURS, TimedSpec


def test_times_of_images_beside_each_other_add_up_to_the_querys() -> None:
    parts = [{"engine": 30.0, "total": 40.0}, {"engine": 50.0, "total": 60.0}]
    assert share_out(parts, 50.0) == [{"engine": 15.0, "total": 20.0}, {"engine": 25.0, "total": 30.0}]


def test_times_of_images_one_after_another_stay() -> None:
    parts = [{"engine": 30.0, "total": 40.0}]
    assert share_out(parts, 41.0) == parts and share_out([], 1.0) == []


@pytest.mark.parametrize("batch", [1, 2])
def test_parts_of_all_images_are_no_more_than_the_time_they_took(
    tiny_bundle: Path, rng: np.random.Generator, batch: int
) -> None:
    spec = TimedSpec(
        name="ours",
        word=OURS,
        kind=OURS,
        bundle=str(tiny_bundle),
        precision="fp32",
        batches=(1, 2),
        backend="openvino",
        plan="fused",
        threads=2,
    )
    timed = TimedInspector(spec)
    try:
        images = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(12)]
        start = time.perf_counter()
        timed.decide_all(iter(images), batch)
        elapsed_ms = (time.perf_counter() - start) * 1e3
        parts = timed.take_parts()
        assert 0 < parts["engine"] < parts["total"] <= elapsed_ms / len(images)
    finally:
        timed.close()

"""Inspectors opened while their bundle is replaced and its threshold changes: one whole bundle, or one error."""

import random
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.bundle import open_bundle, write_bundle
from ndp_rt.editing import set_threshold
from ndp_rt.errors import BundleError
from ndp_rt.program.manifest import ThresholdSpec
from tests.tiny_bundle import make_tiny_bundle

INSPECTION_COUNT = 8


@pytest.mark.parametrize("engines", ["cached", "built under the swaps"])
def test_every_inspection_is_of_one_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engines: str) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    sources = [make_tiny_bundle(tmp_path / f"source{seed}.ndp", seed=seed) for seed in (0, 1)]
    scores = {}
    for source in sources:
        with monkeypatch.context() as patch:
            if engines != "cached":
                patch.setenv("NDP_RT_CACHE", str(tmp_path / "other-cache"))
            with Inspector.open(source.path, threads=1) as inspector:
                scores[source.fingerprint] = inspector.inspect(image).score
    files = [{name: (one.path / name).read_bytes() for name in one.manifest.files} for one in sources]
    place = tmp_path / "tiny.ndp"
    write_bundle(place, manifest_without_files=sources[0].manifest, files=dict(files[0]))
    stop, faults = threading.Event(), []
    if engines != "cached":
        monkeypatch.setattr("ndp_rt.bundle.settled.ATTEMPT_COUNT", 3)  # each builds an engine

    def swap() -> None:
        number, pauses = 0, random.Random(0)
        while not stop.wait(pauses.uniform(0.0, 3.0)):
            number += 1
            manifest = replace(sources[number % 2].manifest, files={})
            write_bundle(place, manifest_without_files=manifest, files=dict(files[number % 2]), overwrite=True)

    def change() -> None:
        while not stop.wait(0.01):
            try:
                set_threshold(open_bundle(place), "fp32", ThresholdSpec(value=0.5, source="manual"))
            except BundleError as error:
                if "changed by another process" not in str(error) and "was replaced" not in str(error):
                    faults.append(error)

    writers = [threading.Thread(target=work) for work in (swap, change)]
    for writer in writers:
        writer.start()
    opened_count = 0
    try:
        for _ in range(INSPECTION_COUNT):
            try:
                with Inspector.open(place, threads=1) as inspector:
                    opened_count += 1
                    assert inspector.inspect(image).score == pytest.approx(scores[inspector.bundle.fingerprint])
                    assert inspector.threshold in (0.5, 0.6)
            except BundleError as error:
                assert "was replaced" in str(error) or "changed by another process" in str(error)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not faults
    print(f"{opened_count} of {INSPECTION_COUNT} opened, {engines}")
    with Inspector.open(place, threads=1) as inspector:  # now it rests
        assert inspector.inspect(image).score == pytest.approx(scores[inspector.bundle.fingerprint])

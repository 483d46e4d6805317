"""Our contender on a GPU, as far as a fake one shows it."""

from pathlib import Path

import pytest

from ndp_rt.bench import gpu_timing
from ndp_rt.bench.contenders import ours
from ndp_rt.bench.contenders.ours import InspectorContender
from ndp_rt.bench.contenders.spec import OURS, ContenderSpec
from ndp_rt.bench.peers.base import to_image
from ndp_rt.bundle import open_bundle
from tests.fakes.fake_cupy import FakeCuda


@pytest.mark.nightly
def test_it_is_checked_decides_and_tells_its_stages_apart(
    tiny_bundle: Path, fake_gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "STEP_COUNT", 2)
    monkeypatch.setattr(gpu_timing, "STEP_REPEATS", 2)
    spec = ContenderSpec(
        name="ndp-rt fake fp32",
        word=OURS,
        kind=OURS,
        bundle=str(tiny_bundle),
        precision="fp32",
        batches=(1, 2),
        device="cuda",
        backend="fake",
        plan="staged",
    )
    contender = InspectorContender(spec)
    try:
        assert set(contender.checks) == {1, 2}
        images = [to_image(values) for values in open_bundle(tiny_bundle).golden().image]
        contender.decide(images[:2], 2)
        assert contender.take_parts()["total"] > 0
        cost = contender.measure_device_cost(2)
    finally:
        contender.close()
    assert {"upload", "preprocess", "encoder", "attention", "postprocess", "download"} <= set(cost.stages_ms)
    assert all(value >= 0 for value in cost.stages_ms.values()) and cost.launch_ms > 0
    assert cost.source.startswith("CUDA events") and cost.memory_bytes > 0

"""The split on a GPU, on the fake one, whose events say 1 ms between any two."""

from pathlib import Path

import pytest

from ndp_rt.bench.gpu_split import split_gpu_stages
from ndp_rt.bench.gpu_timing import STEP_REPEATS
from ndp_rt.bundle import open_bundle
from ndp_rt.devices.cuda.graph import capture_graph
from ndp_rt.kernels.load import KernelSet
from ndp_rt.options import Options
from ndp_rt.runtime.open_gpu import open_gpu_runner
from tests.fakes.fake_cupy import FakeCuda

STEP_MS = 1.0 / STEP_REPEATS


def split(tiny_bundle: Path, plan: str, size: int) -> tuple[dict[str, float], str]:
    bundle = open_bundle(tiny_bundle)
    options = Options(
        bundle=str(tiny_bundle), device="cuda", backend="fake", precision="fp32", plan=plan, batches=(size,)
    )
    runner = open_gpu_runner(bundle, options)
    try:
        plan_on_gpu = runner.plan
        return split_gpu_stages(
            plan_on_gpu,
            bundle.manifest.input,
            size,
            lambda stream, enqueue: capture_graph(plan_on_gpu.device, stream, enqueue),
            KernelSet(),
            count=2,
        )
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("plan", "step_counts", "words"),
    [
        ("unmerged", {"encoder": 1, "attention": 6, "decoder": 1, "segmentation": 2, "postprocess": 2}, "lower bound"),
        ("staged", {"encoder": 1, "attention": 6, "engine": 1, "postprocess": 2}, "decoder and segmentation, which"),
        ("fused", {"engine": 1, "postprocess": 2}, "the whole network"),
    ],
)
def test_every_step_goes_to_its_stage(
    fake_gpu: FakeCuda, tiny_bundle: Path, plan: str, step_counts: dict[str, int], words: str
) -> None:
    stages_ms, source = split(tiny_bundle, plan, 1)
    around = {"upload": 1, "preprocess": 1, "download": 1}
    assert stages_ms == pytest.approx({name: n * STEP_MS for name, n in (step_counts | around).items()})
    assert list(stages_ms)[:2] == ["upload", "preprocess"] and list(stages_ms)[-1] == "download"
    assert words in source


def test_a_batch_is_shared_out_and_all_memory_is_freed(fake_gpu: FakeCuda, tiny_bundle: Path) -> None:
    stages_ms, _ = split(tiny_bundle, "staged", 2)
    assert stages_ms["upload"] == pytest.approx(STEP_MS / 2)
    assert fake_gpu.device_heap.blocks == fake_gpu.pinned_heap.blocks == {}

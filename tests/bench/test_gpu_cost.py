"""What a plan costs on a GPU, on the fake one, whose events say 1 ms between any two."""

import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.bench import gpu_cost
from ndp_rt.bench.gpu_cost import measure_cost
from ndp_rt.bench.kernel_work import GPUS, Gpu, count_preprocess, count_steps, time_floor_us
from ndp_rt.bench.rivals.base import to_image
from ndp_rt.bench.timed import inspector
from ndp_rt.bench.timed.inspector import TimedInspector
from ndp_rt.bench.timed.spec import OURS, TimedSpec
from ndp_rt.bundle import open_bundle
from ndp_rt.decide import regions
from ndp_rt.images import preprocess
from ndp_rt.runtime import cuda_profile, session
from tests.fakes.fake_cupy import FakeCuda

STEP_MS = 1.0 / cuda_profile.STEP_REPEATS


def make_spec(bundle: Path, plan: str, *batches: int) -> TimedSpec:
    return TimedSpec(
        name="ndp-rt fake fp32",
        word=OURS,
        kind=OURS,
        bundle=str(bundle),
        precision="fp32",
        batches=batches,
        device="cuda",
        backend="fake",
        plan=plan,
    )


@pytest.fixture(autouse=True)
def few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_profile, "MEDIAN_COUNT", 2)
    monkeypatch.setattr(gpu_cost, "COPY_BYTES", 2**12)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("plan", "step_counts"),
    [
        ("unmerged", {"encoder": 1, "rbfrm": 6, "decoder": 1, "head": 1, "segmentation": 1, "postprocess": 2}),
        ("staged", {"encoder": 1, "rbfrm": 6, "tail": 1, "postprocess": 2}),
        ("fused", {"fused": 1, "postprocess": 2}),
    ],
)
def test_every_step_goes_to_its_stage(
    fake_gpu: FakeCuda, tiny_bundle: Path, plan: str, step_counts: dict[str, int]
) -> None:
    timed = TimedInspector(make_spec(tiny_bundle, plan, 1))
    cost = measure_cost(timed.runner, open_bundle(tiny_bundle), 1)
    timed.close()
    around = {"upload": 1, "preprocess": 1, "download": 1}
    stages_ms = cost["stages_ms"]
    assert stages_ms == pytest.approx({name: n * STEP_MS for name, n in (step_counts | around).items()})
    assert list(stages_ms)[:2] == ["upload", "preprocess"] and list(stages_ms)[-1] == "download"
    assert "lower bound" in cost["stages_source"]


@pytest.mark.nightly
@pytest.mark.parametrize(("gpus", "gflop_per_s"), [({}, None), ({"Fake": GPUS["H200"]}, None), ({}, 1e-3)])
def test_kernels_are_held_against_launches_and_what_this_gpu_reaches(
    fake_gpu: FakeCuda,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: dict[str, Gpu],
    gflop_per_s: float | None,
) -> None:
    monkeypatch.setattr(gpu_cost, "GPUS", gpus)
    bundle, timed = open_bundle(tiny_bundle), TimedInspector(make_spec(tiny_bundle, "staged", 1))
    gpu = measure_cost(timed.runner, bundle, 1, gflop_per_s)["gpu"]
    works = count_steps(timed.runner.program.find_steps(1), bundle.manifest.decision)
    works["preprocess"] = count_preprocess((1, 64, 64, 3), 1, 64, 64, "float32")
    timed.close()
    copied_gb_per_s = 2e-6 * gpu_cost.COPY_BYTES / STEP_MS
    assert gpu["ceilings"] == pytest.approx(
        {"launch_us": STEP_MS * 1e3, "gbyte_per_s": copied_gb_per_s, "gflop_per_s": gflop_per_s}
    )
    tflops = 67.0 if gpus else 1e-6 if gflop_per_s else 1e30  # of fp32
    used = Gpu(tensor_tflops=1.0, fp32_tflops=tflops, memory_gb_per_s=copied_gb_per_s, source="here")
    six = [STEP_MS + time_floor_us(used, work) / 1e3 for name, work in works.items() if name.startswith("rbfrm")]
    every = [STEP_MS + time_floor_us(used, work) / 1e3 for work in works.values()]
    assert gpu["over_floor"]["rbfrm"] == pytest.approx(6 * STEP_MS / sum(six)) and len(six) == 6
    assert gpu["over_floor"]["all kernels"] == pytest.approx(9 * STEP_MS / sum(every)) and len(every) == 9
    assert set(gpu["over_floor"]) == {"preprocess", "rbfrm", "smooth", "score", "all kernels"}


@pytest.mark.nightly
def test_a_batch_is_shared_out_and_all_memory_is_freed(fake_gpu: FakeCuda, tiny_bundle: Path) -> None:
    timed = TimedInspector(make_spec(tiny_bundle, "staged", 2))
    cost = measure_cost(timed.runner, open_bundle(tiny_bundle), 2)
    timed.close()
    assert cost["stages_ms"]["upload"] == pytest.approx(STEP_MS / 2)
    assert fake_gpu.device_heap.blocks == fake_gpu.pinned_heap.blocks == {}


@pytest.mark.nightly
@pytest.mark.parametrize("has_opencv", [True, False])
def test_ours_is_checked_decides_and_tells_what_it_costs(
    tiny_bundle: Path, fake_gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch, has_opencv: bool
) -> None:
    bundle = open_bundle(tiny_bundle)
    if not has_opencv:
        monkeypatch.setattr(inspector, "HAS_OPENCV", False)
        for module in (preprocess, regions, session):
            monkeypatch.setattr(module, "cv2", None)
    timed = TimedInspector(make_spec(tiny_bundle, "staged", 1, 2))
    try:
        assert set(timed.opened.checks) == {1, 2}
        images = [to_image(values) for values in bundle.golden().image]
        for batch, count in ((1, 2), (2, 2)):
            timed.decide(images[:count], batch)
            assert timed.take_parts()["total"] > 0
            timed.decide_all([images[0]] * 4, batch)
            assert timed.take_parts()["engine"] > 0
        cost = measure_cost(timed.runner, bundle, 2)
    finally:
        timed.close()
    assert ("left out" in timed.opened.facts) != has_opencv
    assert {"upload", "preprocess", "encoder", "rbfrm", "postprocess", "download"} <= set(cost["stages_ms"])
    assert all(value >= 0 for value in cost["stages_ms"].values()) and cost["gpu"]["launch_us"] > 0
    assert cost["stages_source"].startswith("CUDA events") and cost["gpu_memory_bytes"] > 0


def test_an_inspector_loads_where_opencv_is_missing() -> None:
    program = "import sys; sys.modules['cv2'] = None; import ndp_rt.bench.timed.inspector, ndp_rt.bench.gpu_check"
    subprocess.run([sys.executable, "-c", program], check=True)

"""The memory that is foretold is the memory that is taken, and not far from the least."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.devices.cuda.buffers import find_lower_bound
from ndp_rt.errors import InputError
from ndp_rt.graphs.typed import BORDER_DTYPES
from ndp_rt.runtime.gpu_memory import BORDERS, estimate_memory
from ndp_rt.runtime.gpu_steps import count_bytes, find_lifetimes
from tests.fakes.rig import Rig

DEMO = Path(__file__).parents[2] / "ndp_rt" / "data" / "demo.ndp"


@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_estimate_is_what_the_plan_takes(make_rig: Callable[..., Rig], plan: str, size: int) -> None:
    rig = make_rig(plan, batches=(size,))
    one = estimate_memory(rig.bundle.manifest, plan, "fp32", size)
    assert one.tensor_bytes == rig.plan.buffer_bytes
    taken = rig.gpu.device_heap.used_bytes - rig.plan.buffer_bytes  # the reference in use, and the one it came from
    assert 2 * one.reference_bytes == taken
    rig.plan.close()


@pytest.mark.parametrize("size", [1, 8, 32])
def test_buffers_of_a_real_network_are_within_a_tenth_of_the_least(size: int) -> None:
    from ndp_rt.kernels.load import KernelSet
    from ndp_rt.runtime.gpu_memory import describe_stage
    from ndp_rt.runtime.gpu_reference import PatchLayout
    from ndp_rt.runtime.gpu_sized import SizedPlan

    manifest = open_bundle(DEMO).manifest
    stages = {name: describe_stage(manifest, name, "float16", size) for name in ("encoder", "tail")}
    sized = SizedPlan(size, stages, PatchLayout.of(stages["encoder"].outputs), None, KernelSet())
    lives = find_lifetimes(sized.waves)
    sizes = {n: sized.scratch_bytes.get(n) or count_bytes(sized.specs[n]) for n in lives}
    one, least = estimate_memory(manifest, "staged", "fp16", size), find_lower_bound(sizes, lives)
    print(f"batch {size}: {one.tensor_bytes} bytes, at least {least}, without sharing {one.unshared_bytes}")
    assert least <= one.tensor_bytes <= 1.1 * least
    assert one.tensor_bytes < one.unshared_bytes


def test_the_borders_are_those_that_the_graphs_are_written_with() -> None:
    assert BORDERS == BORDER_DTYPES


def test_other_plans_and_precisions_are_refused() -> None:
    manifest = open_bundle(DEMO).manifest
    for plan, precision in (("both", "fp32"), ("staged", "fp8")):
        with pytest.raises(InputError, match="is taken"):
            estimate_memory(manifest, plan, precision, 1)

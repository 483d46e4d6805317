"""The memory that is foretold is the memory that is taken, and not far from the least."""

from collections.abc import Callable
from typing import Any

import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.errors import InputError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.runtime.cuda_steps import CudaSteps
from ndp_rt.runtime.memory_estimate import describe_stage, estimate_memory
from tests.bricks import BRICKS
from tests.fakes.rig import Rig
from tests.runtime.lower_bound import find_lower_bound


@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_estimate_is_what_the_program_takes(make_rig: Callable[..., Rig], plan: str, size: int) -> None:
    rig = make_rig(plan, batches=(size,))
    one = estimate_memory(rig.bundle.manifest, plan, "fp32", size)
    assert one.tensor_bytes == rig.program.buffer_bytes
    assert one.tensor_bytes + one.asset_bytes == rig.gpu.device_heap.used_bytes
    rig.program.close()


@pytest.mark.parametrize("size", [1, 8, 32])
def test_buffers_of_a_real_network_are_within_a_tenth_of_the_least(size: int) -> None:
    manifest = open_bundle(BRICKS).manifest
    _, program = manifest.find_program("cuda", "staged")
    engines: Any = {name: describe_stage(manifest, name, "float16", size) for name in program.stages}
    steps = CudaSteps(manifest, program, size, engines, lambda number: {}, KernelSet())
    lives = steps.find_lifetimes()
    sizes = {n: steps.scratch_bytes.get(n) or steps.specs[n].size_bytes for n in lives}
    one, least = estimate_memory(manifest, "staged", "fp16", size), find_lower_bound(sizes, lives)
    print(f"batch {size}: {one.tensor_bytes} bytes, at least {least}, without sharing {one.unshared_bytes}")
    assert least <= one.tensor_bytes <= 1.1 * least
    assert one.tensor_bytes < one.unshared_bytes


def test_other_plans_and_precisions_are_refused() -> None:
    manifest = open_bundle(BRICKS).manifest
    for plan, precision in (("both", "fp32"), ("staged", "fp8")):
        with pytest.raises(InputError, match="expected"):
            estimate_memory(manifest, plan, precision, 1)

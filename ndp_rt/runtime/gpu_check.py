"""The check of freshly built GPU engines: golden vectors and extreme images, through a plan as they will be used."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.engines.golden_report import GoldenReport, compare_golden
from ndp_rt.engines.precision_probe import probe_precision
from ndp_rt.kernels.load import KernelSet
from ndp_rt.runtime.gpu import GpuPlan

FloatArray = NDArray[np.float32]

# What checks engines for a GPU before they are stored, in the process that built them: engines lie below plans and may
# not import them, so it goes down to them as a name (`ndp_rt.engines.build_check`).
CHECK = "ndp_rt.runtime.gpu_check:check_build"


def check_build(
    bundle: Bundle,
    engines: Mapping[str, DeviceEngine],
    *,
    precision: str,
    batch: int,
    device_index: int,
    tell: Callable[[str], None],
) -> Mapping[str, float | int]:
    """Check engines on their GPU; see `ndp_rt.engines.build_check.BuildCheck`."""
    plan = GpuPlan(
        CudaDevice(device_index),
        {batch: engines},
        None if "fused" in engines else bundle.reference(),
        precision=precision,
        engine_hash="",
        kernels=KernelSet(),
        capture=None,
    )
    try:
        tell(f"checking batch {batch} against the golden vectors")
        report = check_plan(bundle, plan, batch)
        tell(f"probing batch {batch} with extreme images")
        probe_precision(plan.trace, bundle.golden().image, batch, precision)
    finally:
        plan.close(keeps_engines=True)
    return asdict(report)


def check_plan(bundle: Bundle, plan: GpuPlan, batch: int, vector_count: int | None = None) -> GoldenReport:
    """Compare a plan's maps and scores with the golden vectors.

    Args:
        batch: one of the plan's batch sizes.
        vector_count: how many vectors to run, from the first; None: all.

    Raises:
        EngineError: a map or score differs by more than `ndp_rt.engines.tolerances` allows; the message says by how
            much.
    """

    def run(images: FloatArray) -> tuple[FloatArray, FloatArray]:
        maps, _, scores = plan.run(images)
        return maps, scores

    golden = bundle.golden()
    return compare_golden(bundle, golden, run, precision=plan.precision, batch=batch, vector_count=vector_count)

"""Golden vectors, and extreme images, through the executor that engines will be used by."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ndp_rt.bundle.open import Bundle, Golden
from ndp_rt.engines.golden_report import compare_golden, find_largest
from ndp_rt.engines.precision_probe import probe_precision
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError


def check_build(
    bundle: Bundle, spec: EngineSpec, engines: Mapping[str, Any], batch: int, tell: Callable[[str], None]
) -> Mapping[str, float | int]:
    """Check freshly built engines of one batch size before they are stored, in the process that built them.

    Raises:
        EngineError: a result differs by more than `ndp_rt.engines.tolerances` allows, or is NaN or infinite.
    """
    if spec.is_on_gpu:
        return _check_on_gpu(bundle, spec, engines, batch, tell)
    from ndp_rt.runtime.open import make_host_executor  # needs OpenCV

    golden = bundle.golden()
    check_preprocessing(bundle, golden)
    tell(f"checking batch {batch} against {len(golden.image)} golden vectors")
    executor = make_host_executor(bundle, spec, {batch: dict(engines)})
    return asdict(compare_golden(bundle, golden, executor.run, precision=spec.precision, batch=batch))


def _check_on_gpu(
    bundle: Bundle, spec: EngineSpec, engines: Mapping[str, Any], batch: int, tell: Callable[[str], None]
) -> Mapping[str, float | int]:
    from ndp_rt.devices.cuda.driver import CudaDevice
    from ndp_rt.kernels.load import KernelSet
    from ndp_rt.runtime.cuda_program import CudaProgram

    assert spec.plan is not None
    program = CudaProgram(
        bundle,
        spec.plan,
        CudaDevice(spec.device_index),
        {batch: engines},
        precision=spec.precision,
        engine_hash="",
        kernels=KernelSet(),
        capture=None,
    )
    try:
        tell(f"checking batch {batch} against the golden vectors")
        report = compare_golden(bundle, bundle.golden(), program.run, precision=spec.precision, batch=batch)
        tell(f"probing batch {batch} with extreme images")
        probe_precision(program.trace, bundle.golden().image, batch, spec.precision)
    finally:
        program.close(keeps_engines=True)
    return asdict(report)


def check_preprocessing(bundle: Bundle, golden: Golden) -> float:
    """Compare this machine's preprocessing with the golden images; return the largest difference.

    Raises:
        EngineError: it differs by more than `ndp_rt.engines.tolerances` allows.
    """
    from ndp_rt.images.preprocess import preprocess  # needs OpenCV, which a machine with engines for a GPU may lack

    difference = 0.0
    for raw, expected in zip(golden.raw, golden.raw_expected, strict=True):
        # The vectors may be of another size than the network's input: the rule is the same, the file smaller.
        _, height_px, width_px = expected.shape
        contract = replace(bundle.manifest.input, height_px=height_px, width_px=width_px)
        out = np.empty(expected.shape, np.float32)
        preprocess(raw, contract, out)
        difference = find_largest(difference, out, expected)
    tolerance = find_tolerance("preprocess", "fp32").absolute
    if not difference <= tolerance:
        raise EngineError(
            f"{bundle.path}: expected preprocessed images within {tolerance:.0e} of the bundle's, got {difference:.2e} "
            "off. Install another version of opencv-python-headless, and report this."
        )
    return difference

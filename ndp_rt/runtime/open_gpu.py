"""From a bundle to a runner on a GPU: engines, built where they are missing, in a plan that was checked."""

import logging
from functools import partial

from ndp_rt.bundle.open import Bundle
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.engines.build import build_engine, load_device_engines, name_engines
from ndp_rt.engines.registry import find_device_backend
from ndp_rt.kernels.load import KernelSet
from ndp_rt.options import Options
from ndp_rt.runtime.gpu import GpuPlan
from ndp_rt.runtime.gpu_check import CHECK, check_plan
from ndp_rt.runtime.gpu_runner import GpuRunner

log = logging.getLogger("ndp_rt")


def open_gpu_runner(bundle: Bundle, options: Options) -> GpuRunner:
    """Load a bundle's engines onto a GPU, building what is missing, and return what runs images through them.

    Raises:
        InputError: a name or number that is not taken.
        MissingExtraError: CuPy or the backend is not installed.
        DeviceError: there is no such GPU, or it has not enough memory.
        EngineError: an engine cannot be built, is damaged, or is missing and `options.build` is False.
    """
    device = CudaDevice(options.engine_spec.device_index)
    device.activate()
    spec = options.engine_spec.resolve(bundle)
    if options.build:
        build_engine(bundle, spec, check=CHECK, progress=log.info)
    engines = load_device_engines(bundle, spec)
    backend, kernels = find_device_backend(spec.find_backend().name), KernelSet()
    plan = GpuPlan(
        device,
        engines,
        None if spec.plan == "fused" else bundle.reference(),
        precision=spec.precision,
        engine_hash=name_engines(bundle, spec),
        kernels=kernels,
        capture=partial(backend.capture, device),
    )
    try:
        check_plan(bundle, plan, plan.batch_sizes[0], vector_count=1)
        return GpuRunner(bundle, plan, kernels, options.channels)
    except BaseException:
        plan.close()
        raise

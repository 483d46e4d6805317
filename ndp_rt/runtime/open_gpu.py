"""From a bundle to a runner on a GPU: engines, built where they are missing, in a plan that was checked."""

import logging

from ndp_rt.bundle.open import Bundle
from ndp_rt.devices.cuda.driver import CudaDevice, parse_device
from ndp_rt.devices.cuda.graph import Capture, capture_graph
from ndp_rt.engines.base import AnyBackend
from ndp_rt.engines.build import build_requested, load_device_engines
from ndp_rt.engines.built import list_built_batches, name_engines
from ndp_rt.engines.registry import DEVICE_BACKENDS, find_device_backend
from ndp_rt.engines.request import EngineRequest
from ndp_rt.errors import MissingExtraError
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
    device = CudaDevice(parse_device(options.device))
    device.activate()
    request = make_gpu_request(bundle, options, device.index)
    if options.build:
        build_requested(bundle, request, check=CHECK, progress=log.info)
    engines = load_device_engines(bundle, request)
    kernels = KernelSet()
    plan = GpuPlan(
        device,
        engines,
        None if request.plan == "fused" else bundle.reference(),
        precision=request.precision,
        engine_hash=name_engines(bundle, request),
        kernels=kernels,
        capture=find_capture(find_device_backend(request.backend), device),
    )
    try:
        check_plan(bundle, plan, plan.batch_sizes[0], vector_count=1)
        return GpuRunner(bundle, plan, kernels, options.channels)
    except BaseException:
        plan.close()
        raise


def make_gpu_request(bundle: Bundle, options: Options, device_index: int) -> EngineRequest:
    """Return which engines an inspector on a GPU means."""
    backend, plan = find_device_backend(options.backend or choose_backend()).name, options.plan or "staged"
    batches = options.batches
    if batches is None:
        built = list_built_batches(bundle, plan=plan, backend=backend, precision=options.precision)
        batches = (1, *built)
    return EngineRequest(
        backend=backend,
        precision=options.precision,
        batches=tuple(sorted(set(batches))),
        plan=plan,
        device_index=device_index,
    )


def choose_backend() -> str:
    """Return the first GPU backend that is installed.

    Raises:
        MissingExtraError: none is; the message says how to get the first.
    """
    for name, backend in DEVICE_BACKENDS.items():
        if backend.find().version is not None:
            return name
    name, first = next(iter(DEVICE_BACKENDS.items()))
    raise MissingExtraError(
        f"no GPU backend is installed ({', '.join(DEVICE_BACKENDS)}). {name}: {first.find().remedy}."
    )


def find_capture(backend: AnyBackend, device: CudaDevice) -> Capture:
    """Return how a plan of this backend's engines is captured; one with an allocator of its own brings its own way."""
    own: Capture | None = getattr(backend, "capture", None)
    return own or (lambda stream, enqueue: capture_graph(device, stream, enqueue))

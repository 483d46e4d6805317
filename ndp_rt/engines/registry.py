"""The backends by name. Importing this imports none of their libraries."""

from collections.abc import Mapping

from ndp_rt.engines.backends.onnxruntime import OnnxRuntimeBackend
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from ndp_rt.engines.backends.tensorrt import TensorRtBackend
from ndp_rt.engines.backends.torch.backend import TorchCudaBackend
from ndp_rt.engines.base import AnyBackend, Backend
from ndp_rt.engines.device_engine import DeviceBackend
from ndp_rt.errors import InputError, MissingExtraError
from ndp_rt.program.manifest import GPU_PLAN_STAGES, PLAN_STAGES

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (OpenVinoBackend(), OnnxRuntimeBackend())}
DEVICE_BACKENDS: dict[str, DeviceBackend] = {
    backend.name: backend for backend in (TensorRtBackend(), TorchCudaBackend())
}
ALL_BACKENDS: dict[str, AnyBackend] = {**BACKENDS, **DEVICE_BACKENDS}


def find_any_backend(name: str) -> AnyBackend:
    """Return the backend `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in ALL_BACKENDS:
        raise InputError(f"backend is '{name}'; one of {', '.join(ALL_BACKENDS)} is taken.")
    return ALL_BACKENDS[name]


def find_backend(name: str) -> Backend:
    """Return the backend `name`, whose engines run on the host.

    Raises:
        InputError: there is none of that name, or it runs on a GPU.
    """
    find_any_backend(name)
    if name not in BACKENDS:
        raise InputError(f"backend is '{name}', which is for a GPU; on the CPU {' or '.join(BACKENDS)} is taken.")
    return BACKENDS[name]


def find_device_backend(name: str) -> DeviceBackend:
    """Return the backend `name`, whose engines run on a GPU.

    Raises:
        InputError: there is none of that name, or it runs on the host.
    """
    find_any_backend(name)
    if name not in DEVICE_BACKENDS:
        raise InputError(
            f"backend is '{name}', which is for the CPU; on a GPU {' or '.join(DEVICE_BACKENDS)} is taken."
        )
    return DEVICE_BACKENDS[name]


def find_plan_stages(backend: str) -> Mapping[str, tuple[str, ...]]:
    """Return the stages of each plan that a backend's engines can make up."""
    return GPU_PLAN_STAGES if backend in DEVICE_BACKENDS else PLAN_STAGES


def find_version(backend: AnyBackend) -> str:
    """Return the installed version of a backend.

    Raises:
        MissingExtraError: it is not installed; the message holds the install command.
    """
    status = backend.find()
    if status.version is None:
        raise MissingExtraError(f"--backend {backend.name} needs a package that is not installed: {status.remedy}.")
    return status.version

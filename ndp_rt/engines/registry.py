"""The backends by name. Importing this imports none of their libraries."""

from ndp_rt.engines.base import Backend
from ndp_rt.engines.onnxruntime import OnnxRuntimeBackend
from ndp_rt.engines.openvino import OpenVinoBackend
from ndp_rt.engines.tensorrt import TensorRtBackend
from ndp_rt.errors import InputError, MissingExtraError

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (OpenVinoBackend(), OnnxRuntimeBackend(), TensorRtBackend())
}


def find_backend(name: str) -> Backend:
    """Return the backend `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in BACKENDS:
        raise InputError(f"backend is '{name}'; one of {', '.join(BACKENDS)} is taken.")
    return BACKENDS[name]


def find_version(backend: Backend) -> str:
    """Return the installed version of a backend.

    Raises:
        MissingExtraError: it is not installed; the message holds the install command.
    """
    status = backend.find()
    if status.version is None:
        raise MissingExtraError(f"--backend {backend.name} needs a package that is not installed: {status.remedy}.")
    return status.version

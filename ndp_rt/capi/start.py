"""Loads `calls` for the bridge, and leaves the host's environment as it was."""

import importlib

from ndp_rt import __version__
from ndp_rt.config import shield_environment


def start(version: str) -> str | None:
    """Load the functions of a library of this version; return why that is not possible, or None."""
    if version != __version__:
        return (
            f"libndp_rt.so: expected version {__version__}, which ndp-rt has, got {version}. Build the library again "
            "with 'ndp-rt capi build', or load the one that is installed with ndp-rt."
        )
    try:
        with shield_environment():  # OpenCV's wheels (4.x and 5.0) put their folder into LD_LIBRARY_PATH
            importlib.import_module("cv2")
        importlib.import_module("ndp_rt.capi.calls")
    except (ImportError, MemoryError) as error:
        from ndp_rt.devices.host_process import explain_failure

        if (cause := explain_failure(str(error) or "out of memory")) is None:
            raise
        return str(cause)
    return None

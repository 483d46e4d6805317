"""The installed TensorRT: its package, its module and its version. Modules are handed on as `lib`."""

import contextlib
import ctypes
from pathlib import Path
from typing import Any

from ndp_rt.errors import EngineError, MissingExtraError

REMEDY = "pip install 'ndp-rt[gpu]' (CUDA 12) or 'ndp-rt[gpu13]' (CUDA 13), on a machine with an NVIDIA GPU"
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
OLDEST = (8, 5)
RTX_MODULE, RTX_INTERFACE = "tensorrt_rtx", (11, 0)
KERNEL_LIBRARIES = {"CUBLAS": "libcublas", "CUBLAS_LT": "libcublasLt", "CUDNN": "libcudnn"}


def import_tensorrt() -> Any:
    """Return the module tensorrt.

    Raises:
        MissingExtraError: it is not installed, or its libraries cannot be loaded; the message says why.
        EngineError: it is older than what this module knows.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # a library that is missing is an OSError in some versions
        reason = " ".join(str(error).split())
        raise MissingExtraError(f"TensorRT cannot be imported ({reason}). Install it with: {REMEDY}.") from error
    if _numbers(tensorrt.__version__) < OLDEST:
        raise EngineError(
            f"expected TensorRT {dotted(OLDEST)} or later, got {tensorrt.__version__}. Install a later one: {REMEDY}."
        )
    return tensorrt


def find_missing_libraries(module: Any) -> set[str]:
    """Return which of NVIDIA's libraries that TensorRT 8 takes kernels from are not there, as it calls them.

    TensorRT finds them where the loader does, and beside its own package.
    """
    packages = Path(str(module.__file__)).parents[1]
    return {name for name, stem in KERNEL_LIBRARIES.items() if not _is_there(stem, packages)}


def _is_there(stem: str, packages: Path) -> bool:
    if any(packages.glob(f"nvidia/*/lib/{stem}.so.*")):
        return True
    for version in ("12", "11", "9", "8"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(f"{stem}.so.{version}")
            return True
    return False


def find_version(module: Any) -> tuple[int, int]:
    """Return the version of TensorRT whose interface a module has: major and minor.

    TensorRT-RTX has numbers of its own, and from 1.0 on the interface of TensorRT 11.
    """
    return RTX_INTERFACE if module.__name__ == RTX_MODULE else _numbers(module.__version__)


def describe(module: Any) -> str:
    """Return a module's name and version: "TensorRT 10.13.3.9"."""
    return f"TensorRT{'-RTX' if module.__name__ == RTX_MODULE else ''} {module.__version__}"


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def dotted(version: tuple[int, int]) -> str:
    """Return a version as it is written."""
    return f"{version[0]}.{version[1]}"

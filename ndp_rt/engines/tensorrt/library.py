"""The installed TensorRT: its package, its module and its version."""

import contextlib
import importlib.metadata
from typing import Any

from ndp_rt.errors import EngineError, MissingExtraError

REMEDY = "pip install 'ndp-rt[gpu]' (CUDA 12) or 'ndp-rt[gpu13]' (CUDA 13), on a machine with an NVIDIA GPU"
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
OLDEST = (8, 5)


def find_distribution() -> tuple[str, str] | None:
    """Return name and version of the installed package, without importing it; None if there is none."""
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name, importlib.metadata.version(name)
    return None


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
            f"TensorRT {tensorrt.__version__} is installed; {dotted(OLDEST)} or later is taken. Install one: {REMEDY}."
        )
    return tensorrt


def find_version() -> tuple[int, int]:
    """Return the version of the imported TensorRT: major and minor."""
    return _numbers(import_tensorrt().__version__)


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def dotted(version: tuple[int, int]) -> str:
    """Return a version as it is written."""
    return f"{version[0]}.{version[1]}"

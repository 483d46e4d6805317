"""Describes the machine and the software that a record was measured with."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ndp_rt.devices.core_limit import count_usable_cores
from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import MissingExtraError

PACKAGES = (
    *("ndp-rt", "numpy", "opencv-python-headless", "onnx", "openvino", "onnxruntime", "torch", "scikit-learn", "scipy"),
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")

REMEDY = "pip install 'ndp-rt[bench]'"


def read_memory_bytes() -> int | None:
    """Return the size of the memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def read_clock_mhz() -> dict[str, float | None] | None:
    """Return the processor's least, most and current clock; None: the system does not say, or psutil is missing."""
    try:
        found = import_psutil().cpu_freq()
    except (MissingExtraError, OSError, NotImplementedError, RuntimeError):  # what psutil reads differs by system
        return None
    if found is None or not found.current:
        return None
    # A virtual machine often knows the current clock alone, and psutil then gives 0 for the others.
    return {"min": found.min or None, "max": found.max or None, "current": round(found.current, 1)}


def describe_machine() -> dict[str, object]:
    """Return the machine as JSON values: processor, its flags and clock, usable cores, memory, system."""
    cpu = find_cpu()
    return {
        "cpu": cpu.model_name,
        "cpu_flags": [flag for flag in cpu.isa_flags if flag in CPU_FLAGS],
        "core_count": count_usable_cores(),
        "clock_mhz": read_clock_mhz(),
        "memory_bytes": read_memory_bytes(),
        "system": platform.platform(),
    }


def list_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Return Python's version and each package's, None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def import_psutil() -> Any:
    """Return the module psutil.

    Raises:
        MissingExtraError: it is not installed; the message holds the install command.
    """
    try:
        import psutil
    except ImportError as error:
        raise MissingExtraError(
            f"what else the machine does is read through psutil, which cannot be imported ({error}): {REMEDY}."
        ) from error
    return psutil

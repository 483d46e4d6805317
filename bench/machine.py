"""What a record says of the machine and the software that it was measured with."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ndp_rt.device import find_cpu

PACKAGES = ("ndp-rt", "numpy", "opencv-python-headless", "openvino", "onnxruntime", "scikit-learn", "scipy")
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")


def read_memory_bytes() -> int | None:
    """Return the size of the memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def describe_machine() -> dict[str, object]:
    """Return the machine as JSON values: processor, its flags, usable cores, memory, system."""
    cpu = find_cpu()
    return {
        "cpu": cpu.model_name,
        "cpu_flags": [flag for flag in cpu.isa_flags if flag in CPU_FLAGS],
        "core_count": cpu.usable_core_count,
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

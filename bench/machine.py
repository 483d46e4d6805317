"""What a record says of the machine and the software that it was measured with."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ndp-rt", "numpy", "opencv-python-headless", "openvino", "onnxruntime", "scikit-learn", "scipy")
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")


def read_cpu() -> tuple[str, list[str]]:
    """Return the processor's name and which of CPU_FLAGS it has; the name alone where /proc is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = set((entries.get("flags") or entries.get("Features") or "").split())
    return entries.get("model name", platform.machine()), [flag for flag in CPU_FLAGS if flag in flags]


def count_usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_memory_bytes() -> int | None:
    """Return the size of the memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def describe_machine() -> dict[str, object]:
    """Return the machine as JSON values: processor, its flags, usable cores, memory, system."""
    name, flags = read_cpu()
    return {
        "cpu": name,
        "cpu_flags": flags,
        "core_count": count_usable_cores(),
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

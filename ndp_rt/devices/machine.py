"""Finds this machine's CPU and NVIDIA GPUs without the libraries that use them."""

import ctypes
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ndp_rt.errors import DeviceError

CPU_INFO = Path("/proc/cpuinfo")
# The instruction sets that decide which code a backend picks; names are the kernel's.
ISA_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # any of them computes bf16 in hardware


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The CPU that this process runs on."""

    model_name: str
    architecture: str
    physical_core_count: int
    logical_core_count: int
    usable_core_count: int  # what affinity and the container leave to this process
    isa_flags: tuple[str, ...]

    @property
    def has_bf16(self) -> bool:
        """True if bf16 products are computed in hardware."""
        return any(flag in self.isa_flags for flag in BF16_FLAGS)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """An NVIDIA GPU, as its driver names it."""

    name: str
    index: int
    memory_bytes: int | None
    compute_capability: str | None


@lru_cache(maxsize=1)
def find_cpu() -> Cpu:
    """Describe the CPU; fields that the system does not tell hold the next best that it does."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_cpu_info(text)


def parse_cpu_info(text: str) -> Cpu:
    """Describe the CPU from the content of /proc/cpuinfo (empty where there is none)."""
    blocks = [_parse_block(block) for block in text.strip().split("\n\n") if block.strip()]
    first = blocks[0] if blocks else {}
    flags = set((first.get("flags") or first.get("Features") or "").split())
    cores = {(block.get("physical id", "0"), block["core id"]) for block in blocks if "core id" in block}
    logical = os.cpu_count() or 1
    name = first.get("model name") or platform.processor() or platform.machine() or "unknown"
    identity = [first.get(key, "") for key in ("cpu family", "model", "stepping") if key in first]
    return Cpu(
        # Clouds shorten names ("AMD EPYC"); family, model and stepping tell the generations apart.
        model_name=f"{name} ({'-'.join(identity)})" if identity else name,
        architecture=platform.machine(),
        physical_core_count=len(cores) or logical,
        logical_core_count=logical,
        usable_core_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical,
        isa_flags=tuple(flag for flag in ISA_FLAGS if flag in flags),
    )


def _parse_block(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def find_gpus() -> tuple[Gpu, ...]:
    """List NVIDIA GPUs through the driver's own library; none where there is no driver or no GPU. Makes no context."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        if cuda.cuInit(0) != 0:
            return ()
        count = ctypes.c_int()
        if cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return ()
        return tuple(_describe_gpu(cuda, index) for index in range(count.value))
    except (OSError, AttributeError):
        return ()


def find_gpu(index: int) -> Gpu:
    """Return the GPU of that number.

    Raises:
        DeviceError: there is none.
    """
    gpus = find_gpus()
    if not gpus:
        raise DeviceError(
            "device: expected an NVIDIA GPU with a driver, got none. Install NVIDIA's driver (in a container: run it "
            "with --gpus all), or use --backend openvino."
        )
    if index >= len(gpus):
        raise unknown_gpu(index, len(gpus))
    return gpus[index]


def unknown_gpu(index: int, count: int) -> DeviceError:
    """Return the error of a device 'cuda:INDEX' where there are only `count`."""
    return DeviceError(f"device: expected one of this machine's {count} GPUs, numbered from 0, got 'cuda:{index}'.")


def find_cuda_version() -> str | None:
    """Return the newest CUDA version that the NVIDIA driver runs, such as "12.4"; None where there is no driver."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def find_driver_version() -> str | None:
    """Return the NVIDIA driver's version, or None where its kernel module is not loaded."""
    try:
        line = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return None
    versions = [word for word in line.split() if word[0].isdigit() and "." in word]
    return versions[0] if versions else None


def _describe_gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    named = cuda.cuDeviceGetName(name, len(name), device) == 0
    sized = cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device) == 0
    numbers = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        value = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) == 0:
            numbers.append(str(value.value))
    return Gpu(
        name=name.value.decode("utf-8", "replace") if named else "unknown NVIDIA GPU",
        index=index,
        memory_bytes=memory.value if sized else None,
        compute_capability=".".join(numbers) if len(numbers) == 2 else None,
    )

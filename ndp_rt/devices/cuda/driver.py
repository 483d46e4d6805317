"""The GPU that a pipeline runs on, in its primary context, and CUDA's errors as ours."""

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from ndp_rt.errors import DeviceError, InputError, MissingExtraError, NdpRtError

REMEDY = "pip install 'ndp-rt[gpu]' (CUDA 12) or 'ndp-rt[gpu13]' (CUDA 13)"
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation

log = logging.getLogger("ndp_rt")


def import_cupy() -> Any:
    """Return the module cupy.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported; the message holds the install command.
    """
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError(f"a GPU is used through CuPy, which cannot be imported ({error}): {REMEDY}.") from error
    return cupy


def parse_device(text: str) -> int:
    """Return the index of a device called "cuda" (the first one) or "cuda:N".

    Raises:
        InputError: it is called otherwise.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if match is None:
        raise InputError(f"device is '{text}'; 'cpu', 'cuda' or 'cuda:N' is taken, such as 'cuda:0'.")
    return int(match.group(1) or 0)


@contextlib.contextmanager
def translate_errors(doing: str) -> Iterator[None]:
    """Turn CuPy's errors into a DeviceError that names CUDA's error, its text and what was being done."""
    try:
        yield
    except NdpRtError:
        raise
    except MemoryError as error:  # cupy.cuda.memory.OutOfMemoryError is one
        raise DeviceError(f"{doing}: the GPU is out of memory ({error}). Use smaller batches, or free some.") from error
    except RuntimeError as error:  # CUDARuntimeError, CUDADriverError and NVRTCError derive from it
        if getattr(error, "status", None) == OUT_OF_MEMORY:
            raise DeviceError(f"{doing}: the GPU is out of memory. Use smaller batches, or free some.") from error
        raise DeviceError(
            f"{doing}: {' '.join(str(error).split())}. If this names a launch failure or a lost device, no CUDA call "
            "of this process will work again: close the inspector and restart, or open another with device='cpu'."
        ) from error


@contextlib.contextmanager
def tolerate_errors(doing: str) -> Iterator[None]:
    """Log CUDA's errors instead of raising them: for closing, which goes on even where the device is lost."""
    try:
        with translate_errors(doing):
            yield
    except DeviceError as error:
        log.warning("%s", error)


class CudaDevice:
    """One GPU; makes no context of its own but uses the primary one, as CuPy, PyTorch and TensorRT do."""

    def __init__(self, index: int) -> None:
        """Look the device up.

        Raises:
            MissingExtraError: CuPy is not installed.
            DeviceError: no driver, a driver that is too old for CuPy, or no such device.
        """
        self.cupy = import_cupy()
        self.index = index
        try:
            count = int(self.cupy.cuda.runtime.getDeviceCount())
        except RuntimeError as error:
            raise DeviceError(
                f"no GPU can be used: {' '.join(str(error).split())}. It needs NVIDIA's driver, recent enough for the "
                "CUDA of the installed CuPy (in a container: --gpus all). Or open with device='cpu'."
            ) from error
        if index >= count:
            raise DeviceError(f"device is 'cuda:{index}'; this machine has {count} GPUs, numbered from 0.")
        with translate_errors("asking the GPU what it is"):
            facts = self.cupy.cuda.runtime.getDeviceProperties(index)
            self.driver_version = int(self.cupy.cuda.runtime.driverGetVersion())
        name = facts["name"]
        self.name = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        self.compute_capability = f"{facts['major']}.{facts['minor']}"

    def activate(self) -> None:
        """Make this the calling thread's device; every thread that calls CUDA has to, and it costs about 1 us."""
        with translate_errors(f"selecting cuda:{self.index}"):
            self.cupy.cuda.runtime.setDevice(self.index)

    def find_free_bytes(self) -> tuple[int, int]:
        """Return the free and the total memory of the device."""
        with translate_errors("asking for free memory"):
            free, total = self.cupy.cuda.runtime.memGetInfo()
        return int(free), int(total)

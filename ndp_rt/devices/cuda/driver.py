"""Opens the GPU that a pipeline runs on, in its primary context, and turns CUDA's errors into ndp-rt's."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ndp_rt.devices.machine import unknown_gpu
from ndp_rt.errors import DeviceError, MissingExtraError, NdpRtError

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
        raise MissingExtraError(f"GPUs need CuPy, which cannot be imported ({error}). Install it: {REMEDY}.") from error
    return cupy


@contextlib.contextmanager
def translate_errors(doing: str) -> Iterator[None]:
    """Turn CuPy's errors into a DeviceError that names CUDA's error, its text and what was being done."""
    try:
        yield
    except NdpRtError:
        raise
    except MemoryError as error:  # cupy.cuda.memory.OutOfMemoryError is one
        raise _no_memory(doing, f" ({error})") from error
    except RuntimeError as error:  # CUDARuntimeError, CUDADriverError and NVRTCError derive from it
        if getattr(error, "status", None) == OUT_OF_MEMORY:
            raise _no_memory(doing) from error
        raise DeviceError(
            f"{doing}: {' '.join(str(error).split())}. If this names a launch failure or a lost device, no CUDA call "
            "of this process will work again: close the inspector and restart, or open another with device='cpu'."
        ) from error


def _no_memory(doing: str, details: str = "") -> DeviceError:
    return DeviceError(f"{doing}: the GPU is out of memory{details}. Use smaller batches, or free some.")


@contextlib.contextmanager
def tolerate_errors(doing: str) -> Iterator[None]:
    """Log CUDA's errors instead of raising them: for closing, which goes on even where the device is lost."""
    try:
        with translate_errors(doing):
            yield
    except DeviceError as error:
        log.warning("%s", error)


class CudaDevice:
    """One GPU, in its primary context, which CuPy, PyTorch and TensorRT use too."""

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
                f"no GPU can be used: {' '.join(str(error).split())}. Install an NVIDIA driver that is recent enough "
                "for the CUDA of the installed CuPy (in a container: --gpus all), or open with device='cpu'."
            ) from error
        if index >= count:
            raise unknown_gpu(index, count)
        with translate_errors("asking the GPU what it is"):
            facts = self.cupy.cuda.runtime.getDeviceProperties(index)
            self.driver_version = int(self.cupy.cuda.runtime.driverGetVersion())
        name = facts["name"]
        self.name = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        self.compute_capability = f"{facts['major']}.{facts['minor']}"

    def activate(self) -> None:
        """Make this the calling thread's device, as every thread that calls CUDA must; it takes about 1 us."""
        with translate_errors(f"selecting cuda:{self.index}"):
            self.cupy.cuda.runtime.setDevice(self.index)

    def copy(self, kind: str, target: int, source: int, size_bytes: int, stream: Any) -> None:
        """Put a copy between two addresses on a stream; kind: HostToDevice, DeviceToHost or DeviceToDevice."""
        runtime = self.cupy.cuda.runtime
        runtime.memcpyAsync(target, source, size_bytes, getattr(runtime, f"memcpy{kind}"), stream.ptr)

    def find_free_bytes(self) -> tuple[int, int]:
        """Return the free and the total memory of the device."""
        with translate_errors("asking for free memory"):
            free, total = self.cupy.cuda.runtime.memGetInfo()
        return int(free), int(total)

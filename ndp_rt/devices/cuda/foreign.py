"""Reads images in arrays of other libraries without a copy: NumPy, CuPy, PyTorch, PyCUDA and others of their kind.

An array on a GPU is read through DLPack where it offers that, else through `__cuda_array_interface__`. The device waits
for the work that the array's producer has put on a stream; the host never does.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.devices.cuda.dlpack import CPU, CUDA, CUDA_HOST, CUDA_MANAGED, MAX_VERSION, DlpackOwner, take_capsule
from ndp_rt.devices.cuda.driver import CudaDevice, translate_errors
from ndp_rt.errors import InputError
from ndp_rt.images.checks import IMAGES, check_channels, check_kind

ARRAYS = f"a NumPy, CuPy, PyTorch or PyCUDA array, {IMAGES}"
LEGACY_STREAM = 1  # cudaStreamLegacy, the default stream; as a handle it is valid everywhere, unlike 0
PER_THREAD_STREAM = 2  # cudaStreamPerThread: in each thread it is another one
INTERFACE_VERSIONS = (2, 3)
UNREGISTERED, DEVICE_MEMORY = 0, 2  # cudaMemoryType


@dataclass(frozen=True, kw_only=True)
class ForeignImage:
    """An image where its producer left it; launchers read it as they do CuPy's arrays.

    Attributes:
        pointer: address of its first element.
        shape: [h, w], [h, w, 1], [h, w, 3] or, with "drop-alpha", [h, w, 4].
        strides_bytes: one an axis; negative ones and zeros are possible.
        dtype: uint8 or uint16.
        device_index: the GPU that holds it; None for host memory.
        stream: a cudaStream_t as a number, whose work up to now has to be done before the image is read; None where
            there is nothing to wait for, or the producer made the reading stream wait already.
        owner: keeps the memory alive; to be held until the image was read.
    """

    pointer: int
    shape: tuple[int, ...]
    strides_bytes: tuple[int, ...]
    dtype: np.dtype[Any]
    device_index: int | None
    stream: int | None
    owner: object

    @property
    def data(self) -> "ForeignImage":
        """This, whose `ptr` is the address: as of CuPy's arrays."""
        return self

    @property
    def ptr(self) -> int:
        return self.pointer

    @property
    def strides(self) -> tuple[int, ...]:
        return self.strides_bytes

    @property
    def host_array(self) -> NDArray[Any]:
        """An image in host memory as a NumPy array."""
        assert isinstance(self.owner, np.ndarray)
        return self.owner


def take_image(array: object, device: CudaDevice, stream: int, channels: str = "rgb") -> ForeignImage:
    """Take an image from an array of any library.

    Args:
        array: a NumPy array; anything with `__dlpack__` and `__dlpack_device__`, or with `__cuda_array_interface__`.
        device: the GPU that the pipeline runs on.
        stream: the cudaStream_t that will read the image, as a number; 0 is the legacy default stream.
        channels: the image's order, one of `ndp_rt.images.checks.CHANNELS`.

    Raises:
        InputError: another object, type or shape; an image on another device; memory that is not there any more.
        DeviceError: the device is lost.
    """
    check_channels(channels)
    if isinstance(array, np.ma.MaskedArray):
        raise _unexpected("a masked array", "Fill it with filled().")
    if isinstance(array, np.ndarray):
        image = _take_host(array)
    elif hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        image = _take_dlpack(array, device, stream)
    elif _has_interface(array):
        image = _take_interface(array, device)
    else:
        raise _unexpected(type(array).__name__, "Read files with read_image().")
    try:
        check_kind(image.dtype, image.shape, channels)
        if image.pointer == 0:
            raise _unexpected("one at address 0", "It was freed: keep it alive.")
    except InputError:
        if isinstance(image.owner, DlpackOwner):
            image.owner.close()  # at once, not when the error's traceback goes
        raise
    return image


def order_after_producer(image: ForeignImage, stream: Any, event: Any, device: CudaDevice) -> None:
    """Make a CuPy stream wait on the device for what the image's producer has put on its own stream so far.

    Args:
        image: what `take_image` returned for this stream.
        stream: the CuPy stream that will read it.
        event: a CuPy event that nobody else waits for; recorded.
        device: the GPU, active in this thread.
    """
    if image.stream is None or image.stream == stream.ptr:
        return
    with translate_errors("waiting for the stream that an image came with"):
        device.cupy.cuda.runtime.eventRecord(event.ptr, image.stream)
        stream.wait_event(event)


def share_streams(device: CudaDevice) -> Callable[[], None]:
    """Note the streams that are current in this thread, CuPy's and PyTorch's; return what makes them another thread's.

    An array's library says of it that it is ready after the stream which is current in the thread that asks.

    Args:
        device: whose streams.
    """
    cuda, torch = device.cupy.cuda, getattr(sys.modules.get("torch"), "cuda", None)
    own, event = cuda.get_current_stream(device.index), None
    if own.ptr == PER_THREAD_STREAM:
        with translate_errors("noting the stream of this thread"):
            event = own.record(cuda.Event(disable_timing=True))
    others = torch.current_stream(device.index) if torch is not None and torch.is_initialized() else None

    def use() -> None:
        device.activate()
        with translate_errors("going on with another thread's stream"):
            own.use()
            if event is not None:
                own.wait_event(event)
            if torch is not None and others is not None:
                torch.set_stream(others)

    return use


def _take_host(array: NDArray[Any]) -> ForeignImage:
    return ForeignImage(
        pointer=array.__array_interface__["data"][0],
        shape=array.shape,
        strides_bytes=array.strides,
        dtype=array.dtype,
        device_index=None,
        stream=None,
        owner=array,
    )


def _take_dlpack(array: Any, device: CudaDevice, stream: int) -> ForeignImage:
    """Let the producer order its work before `stream`, and take the array over."""
    name = type(array).__name__
    kind, index = (int(number) for number in array.__dlpack_device__())
    if kind in (CPU, CUDA_HOST):
        try:
            return _take_host(np.from_dlpack(array))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise _refused(name, error) from error
    if kind not in (CUDA, CUDA_MANAGED):
        raise _unexpected(f"{name} on a device of DLPack's kind {kind}", "Copy it to the host.")
    if kind == CUDA:
        _check_index(index, device)
    consumer = LEGACY_STREAM if stream == 0 else stream
    try:
        try:
            capsule = array.__dlpack__(stream=consumer, max_version=MAX_VERSION)
        except TypeError:  # from before DLPack 1.0
            capsule = array.__dlpack__(stream=consumer)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(name, error) from error
    taken = take_capsule(capsule)
    try:
        dtype = np.dtype(taken.type_name)
    except TypeError:  # NumPy has no such type; bfloat16 for one
        taken.owner.close()
        raise _unexpected(f"{taken.type_name} {list(taken.shape)}", "Convert it.") from None
    return ForeignImage(
        pointer=taken.pointer,
        shape=taken.shape,
        strides_bytes=taken.strides,
        dtype=dtype,
        device_index=device.index,
        stream=None,
        owner=taken.owner,
    )


def _has_interface(array: object) -> bool:
    try:
        return hasattr(array, "__cuda_array_interface__")
    except RuntimeError:  # PyTorch's answer for a tensor that requires a gradient
        return True


def _take_interface(array: Any, device: CudaDevice) -> ForeignImage:
    """Read `__cuda_array_interface__`, versions 2 and 3.

    Without a stream (version 2; None in version 3) the producer's work is expected on the default stream: that is where
    PyCUDA, whose arrays say None, puts it. A producer that used another stream without naming it must wait for it.
    """
    name = type(array).__name__
    try:
        facts: Mapping[str, Any] = array.__cuda_array_interface__
    except RuntimeError as error:
        raise _refused(name, error) from error
    version = facts.get("version")
    if version not in INTERFACE_VERSIONS:
        raise InputError(f"image: expected __cuda_array_interface__ 2 or 3, got {version} from {name}.")
    if facts.get("mask") is not None:
        raise _unexpected(f"a masked {name}", "Fill it first.")
    pointer, shape, dtype = int(facts["data"][0]), tuple(facts["shape"]), np.dtype(facts["typestr"])
    stream = facts.get("stream")
    if stream == 0:
        raise InputError(f"image: expected a stream other than 0, got {name} with 0. Name a default stream as 1 or 2.")
    strides = facts.get("strides")
    if strides is None:
        strides = tuple(dtype.itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    if pointer:
        _check_memory(pointer, name, device)
    return ForeignImage(
        pointer=pointer,
        shape=shape,
        strides_bytes=tuple(strides),
        dtype=dtype,
        device_index=device.index,
        stream=LEGACY_STREAM if stream is None else int(stream),
        owner=array,
    )


def _check_memory(pointer: int, name: str, device: CudaDevice) -> None:
    """Check that an address is memory that the device can read."""
    with translate_errors("asking where an image lies"):
        facts = device.cupy.cuda.runtime.pointerGetAttributes(pointer)
    if facts.type == UNREGISTERED:
        raise InputError(
            f"image: expected memory of a GPU, got {name} at {pointer:#x}. If it was freed, keep the array alive until "
            "its result is there."
        )
    if facts.type == DEVICE_MEMORY:
        _check_index(int(facts.device), device)


def _check_index(index: int, device: CudaDevice) -> None:
    if index != device.index:
        raise InputError(
            f"image: expected it on cuda:{device.index}, where the pipeline runs, got cuda:{index}. Copy it there, or "
            f"open with device='cuda:{index}'."
        )


def _unexpected(got: str, hint: str) -> InputError:
    return InputError(f"image: expected {ARRAYS}, got {got}. {hint}")


def _refused(name: str, error: Exception) -> InputError:
    return InputError(f"image: the library of {name} does not hand it out ({error}). Pass a plain array.")

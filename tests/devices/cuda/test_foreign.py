"""Images of other libraries: which are taken, from where, and in what order with their producers' work."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.foreign import (
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    ForeignImage,
    order_after_producer,
    share_streams,
    take_image,
)
from ndp_rt.devices.cuda.memory import DeviceMemory
from ndp_rt.errors import DeviceError, InputError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess import definition, launch
from ndp_rt.program.manifest import InputContract
from tests.fakes.dlpack_producer import DlpackProducer
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError, FakeEvent, FakeStream
from tests.interpreter.interpreter import Interpreter
from tests.tolerances import assert_close

STREAM = 0x7000
IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.fixture
def device(gpu: FakeCuda) -> CudaDevice:
    return CudaDevice(0)


class Interface:
    """An array with `__cuda_array_interface__` alone."""

    def __init__(self, array: np.ndarray, pointer: int, **changes: Any) -> None:
        facts = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (pointer, False),
            "version": 3,
            "strides": array.strides,
        }
        self.__cuda_array_interface__ = {**facts, **changes}


def describe(image: ForeignImage) -> tuple[object, ...]:
    return image.pointer, image.shape, image.strides_bytes, image.dtype


@pytest.mark.parametrize("view", [IMAGE, IMAGE[::-1, ::2], IMAGE[..., 0], IMAGE.astype(np.uint16)])
def test_numpy_arrays_stay_on_the_host(device: CudaDevice, view: np.ndarray) -> None:
    view.flags.writeable = False
    image = take_image(view, device, STREAM)
    assert describe(image) == (view.ctypes.data, view.shape, view.strides, view.dtype)
    assert image.device_index is None and image.stream is None and image.host_array is view


def test_other_libraries_arrays_on_the_host_are_not_copied(device: CudaDevice) -> None:
    producer = DlpackProducer(IMAGE, device=(1, 0), version=None)
    image = take_image(
        SimpleNamespace(__dlpack__=producer.__dlpack__, __dlpack_device__=lambda: (1, 0)), device, STREAM
    )
    assert image.device_index is None and image.pointer == IMAGE.ctypes.data
    assert np.array_equal(image.host_array, IMAGE)
    assert producer.streams in ([None], [None, None])  # a host has no streams
    del image
    assert producer.given_back == 1


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_pytorch_tensors_on_the_host_are_taken_as_they_lie(device: CudaDevice, dtype: str) -> None:
    import torch

    tensor = torch.arange(60).to(getattr(torch, dtype)).reshape(3, 4, 5).permute(1, 2, 0)  # channels first
    image = take_image(tensor, device, STREAM)
    assert (image.pointer, image.shape, image.device_index) == (tensor.data_ptr(), (4, 5, 3), None)
    assert np.array_equal(image.host_array, tensor.numpy())
    with pytest.raises(InputError, match=r"float32 \[4, 5, 3\].*NaN"):
        take_image(tensor.float(), device, STREAM)
    with pytest.raises(InputError, match=r"library of Tensor does not hand it out .*detach"):
        take_image(tensor.float().requires_grad_(), device, STREAM)


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize(("stream", "told"), [(STREAM, STREAM), (0, LEGACY_STREAM), (1, 1), (2, 2)])
def test_a_dlpack_producer_is_told_the_reading_stream(
    device: CudaDevice, version: tuple[int, int] | None, stream: int, told: int
) -> None:
    producer = DlpackProducer(IMAGE[::-1], version=version)
    image = take_image(producer, device, stream)
    assert producer.streams == [told]
    assert describe(image) == (IMAGE[::-1].ctypes.data, IMAGE.shape, IMAGE[::-1].strides, IMAGE.dtype)
    assert image.device_index == 0 and image.stream is None
    assert producer.given_back == 0
    del image
    assert producer.given_back == 1


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (IMAGE.astype(np.float32), {}, r"got float32 \[4, 5, 3\].*NaN.*astype"),
        (IMAGE.astype(np.int64), {}, "int64"),
        (IMAGE.astype(np.uint16), {"type_code": 4}, r"uint8 or uint16 .* got bfloat16 \[4, 5, 3\]"),
        (IMAGE.transpose(2, 0, 1), {}, "Channels go last"),
        (IMAGE[:0], {"pointer": 0}, "no pixels"),
        (IMAGE, {"pointer": 0}, "at address 0. It was freed"),
        (IMAGE, {"version": (2, 0)}, r"DLPack below 2\.0, got 2\.0"),
    ],
)
def test_what_is_refused_is_given_back_once(
    device: CudaDevice, array: np.ndarray, options: dict[str, Any], words: str
) -> None:
    producer = DlpackProducer(array, **options)
    with pytest.raises(InputError, match=words):
        take_image(producer, device, STREAM)
    assert len(producer.streams) == 1 and producer.given_back == 1


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((2, 1), r"expected it on cuda:0, where .* got cuda:1.*device='cuda:1'"),
        ((10, 0), "device of DLPack's kind 10"),
    ],
)
def test_images_on_another_device_are_not_even_asked_for(
    device: CudaDevice, place: tuple[int, int], words: str
) -> None:
    producer = DlpackProducer(IMAGE, device=place)
    with pytest.raises(InputError, match=words):
        take_image(producer, device, STREAM)
    assert producer.streams == [] and producer.given_back == 0


def test_a_producers_refusal_is_passed_on(device: CudaDevice) -> None:
    def refuse(**options: object) -> object:
        raise BufferError("use tensor.detach()")

    array = SimpleNamespace(__dlpack__=refuse, __dlpack_device__=lambda: (2, 0))
    with pytest.raises(InputError, match=r"does not hand it out \(use tensor.detach\(\)\)"):
        take_image(array, device, STREAM)


@pytest.mark.parametrize(
    ("changes", "stream"),
    [
        ({"stream": 1}, 1),
        ({"stream": 2}, 2),
        ({"stream": 0x5123}, 0x5123),
        ({"stream": None}, LEGACY_STREAM),  # PyCUDA's arrays say None, and their work is on the default stream
        ({}, LEGACY_STREAM),
        ({"version": 2}, LEGACY_STREAM),
    ],
)
def test_the_array_interface_says_whose_stream_to_wait_for(
    gpu: FakeCuda, device: CudaDevice, changes: dict[str, Any], stream: int
) -> None:
    memory = DeviceMemory(device, IMAGE.nbytes, "images")
    image = take_image(Interface(IMAGE, memory.pointer, **changes), device, STREAM)
    assert describe(image) == (memory.pointer, IMAGE.shape, IMAGE.strides, IMAGE.dtype)
    assert image.device_index == 0 and image.stream == stream


def test_the_array_interface_leaves_strides_out_where_it_is_dense(gpu: FakeCuda, device: CudaDevice) -> None:
    memory = DeviceMemory(device, 2 * IMAGE.nbytes, "images")
    for array in (IMAGE, IMAGE.astype(np.uint16), IMAGE[..., 0].copy()):
        assert take_image(Interface(array, memory.pointer, strides=None), device, STREAM).strides == array.strides


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"typestr": "<f4"}, r"float32 \[4, 5, 3\].*NaN"),
        ({"shape": (3, 4, 5)}, "Channels go last"),
        ({"mask": object()}, "a masked Interface"),
        ({"version": 4}, "__cuda_array_interface__ 2 or 3, got 4"),
        ({"stream": 0}, "expected a stream other than 0"),
        ({"data": (0, True)}, "at address 0. It was freed"),
        ({"data": (0, True), "shape": (0, 5, 3)}, "no pixels"),
    ],
)
def test_array_interfaces_that_are_refused(
    gpu: FakeCuda, device: CudaDevice, changes: dict[str, Any], words: str
) -> None:
    memory = DeviceMemory(device, IMAGE.nbytes, "images")
    with pytest.raises(InputError, match=words):
        take_image(Interface(IMAGE, memory.pointer, **changes), device, STREAM)


def test_freed_memory_host_memory_and_other_devices_are_noticed(gpu: FakeCuda, device: CudaDevice) -> None:
    memory = DeviceMemory(device, IMAGE.nbytes, "images")
    image = Interface(IMAGE, memory.pointer)
    memory.close()
    for one in (image, Interface(IMAGE, IMAGE.ctypes.data)):
        with pytest.raises(InputError, match="expected memory of a GPU, .* If it was freed"):
            take_image(one, device, STREAM)
    gpu.module.cuda.runtime.pointerGetAttributes = lambda ptr: SimpleNamespace(type=2, device=1)
    with pytest.raises(InputError, match="got cuda:1"):
        take_image(image, device, STREAM)
    gpu.machine.lost = CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")
    gpu.module.cuda.runtime.pointerGetAttributes = lambda ptr: gpu.machine.check()
    with pytest.raises(DeviceError, match="asking where an image lies: cudaErrorIllegalAddress"):
        take_image(image, device, STREAM)


@pytest.mark.parametrize("other", [[[1, 2], [3, 4]], "picture.png", None, 7, b"bytes"])
def test_other_objects_are_refused(device: CudaDevice, other: object) -> None:
    with pytest.raises(InputError, match=r"a NumPy, CuPy, PyTorch or PyCUDA array, .*read_image"):
        take_image(other, device, STREAM)


def test_masked_arrays_and_unknown_orders_of_channels_are_refused(device: CudaDevice) -> None:
    with pytest.raises(InputError, match=r"masked array.*filled\(\)"):
        take_image(np.ma.masked_array(IMAGE, IMAGE > 7), device, STREAM)
    with pytest.raises(InputError, match="channels: expected .*'gbr'"):
        take_image(IMAGE, device, STREAM, "gbr")
    with pytest.raises(InputError, match="drop-alpha"):
        take_image(np.zeros((2, 2, 4), np.uint8), device, STREAM)
    assert take_image(np.zeros((2, 2, 4), np.uint8), device, STREAM, "drop-alpha").shape == (2, 2, 4)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_a_late_producer_is_waited_for(
    install_gpu: Callable[[FakeCuda], FakeCuda],
    interpreter: Interpreter,
    rng: np.random.Generator,
    named: bool,
    waits: bool,
) -> None:
    """The producer's work runs as late as CUDA may run it, the pipeline's at once: only the wait brings the image."""
    gpu = install_gpu(FakeCuda(interpreter.make_module))
    device, contract = CudaDevice(0), InputContract(height_px=64, width_px=64)
    late, pipeline = FakeStream(gpu.machine, is_eager=False), FakeStream(gpu.machine, is_eager=True)
    pixels = rng.integers(1, 256, (90, 70, 3), dtype=np.uint8)
    source, target = DeviceMemory(device, pixels.nbytes, "images"), DeviceMemory(device, 3 * 64 * 64 * 4, "an input")
    place = source.view(pixels.shape, "uint8").host()
    place[...] = 0
    late.add(lambda: place.__setitem__(..., pixels))
    gpu.machine.streams[LEGACY_STREAM] = late
    producer = Interface(pixels, source.pointer, stream=late.ptr if named else None)
    out = target.view((3, 64, 64), "float32")

    image = take_image(producer, device, pipeline.ptr)
    if waits:
        order_after_producer(image, pipeline, FakeEvent(gpu.machine), device)
    launch.preprocess(KernelSet(), image, out, contract, dtype="float32", stream=pipeline)
    if waits:
        assert_close(out.host(), definition.preprocess(pixels, 64, 64), "preprocess", "float32")
    else:
        assert not out.host().any()  # without the wait it would read what was there before


def test_nothing_is_put_on_the_stream_where_there_is_nothing_to_wait_for(gpu: FakeCuda, device: CudaDevice) -> None:
    pipeline, event = FakeStream(gpu.machine, is_eager=True), FakeEvent(gpu.machine)
    memory = DeviceMemory(device, IMAGE.nbytes, "images")
    for array in (
        IMAGE,
        DlpackProducer(IMAGE),
        Interface(IMAGE, memory.pointer, stream=pipeline.ptr),
    ):
        order_after_producer(take_image(array, device, pipeline.ptr), pipeline, event, device)
    assert event.node is None and not pipeline.waits


def run_in_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_threads_streams_become_those_of_another_thread(
    gpu: FakeCuda, device: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = threading.local()
    torch = SimpleNamespace(is_initialized=lambda: True, current_stream=lambda index: ("torch", index))
    torch.set_stream = lambda stream: setattr(current, "stream", stream)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=torch))
    own = FakeStream(gpu.machine, is_eager=False).use()
    use = share_streams(device)

    def find_current() -> tuple[Any, Any]:
        use()
        return gpu.module.cuda.get_current_stream(), current.stream

    assert run_in_thread(find_current) == (own, ("torch", 0)) and not hasattr(current, "stream")
    torch.is_initialized = lambda: False  # asking it for a stream would make it take the GPU
    use = share_streams(device)
    with pytest.raises(AttributeError):
        run_in_thread(find_current)


def test_the_default_stream_of_a_thread_of_its_own_is_waited_for(gpu: FakeCuda, device: CudaDevice) -> None:
    ran: list[str] = []
    own = FakeStream(gpu.machine, is_eager=False).use()
    own.ptr = PER_THREAD_STREAM
    own.add(lambda: ran.append("caller"))
    use = share_streams(device)
    own.tail = None  # in the other thread it is another stream, with nothing on it
    run_in_thread(use)
    own.add(lambda: ran.append("source"))
    own.synchronize()
    assert ran == ["caller", "source"]

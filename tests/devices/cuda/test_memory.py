"""Device and pinned memory: views, sizes, what is said when it runs out, and that everything is freed."""

import numpy as np
import pytest

from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.errors import DeviceError
from tests.fakes.fake_cupy import FakeCuda


def test_views_lie_where_they_were_asked_for(gpu: FakeCuda) -> None:
    memory = DeviceMemory(CudaDevice(0), 1024, "tensors")
    view = memory.view((2, 3), "float16", 256)
    assert (view.data.ptr, view.shape, view.dtype) == (memory.pointer + 256, (2, 3), np.float16)
    assert memory.view((4,), "bfloat16").dtype == np.uint16
    with pytest.raises(AssertionError):
        memory.view((129,), "float32", 512)


def test_what_does_not_fit_is_refused_with_its_number_of_bytes_and_less_still_fits(gpu: FakeCuda) -> None:
    device = CudaDevice(0)
    with pytest.raises(DeviceError, match=r"tensors: expected 1048577 free bytes on Fake GPU, got 1048576 of 1048576"):
        DeviceMemory(device, 2**20 + 1, "tensors")
    DeviceMemory(device, 2**20, "tensors").close()
    assert gpu.device_heap.blocks == {}


def test_closing_frees_once(gpu: FakeCuda) -> None:
    for memory in (DeviceMemory(CudaDevice(0), 100, "x"), PinnedMemory(CudaDevice(0), 100)):
        memory.close()
        memory.close()
    assert gpu.device_heap.blocks == gpu.pinned_heap.blocks == {}


def test_pinned_views_are_numpy_arrays_over_the_memory(gpu: FakeCuda) -> None:
    pinned = PinnedMemory(CudaDevice(0), 64)
    pinned.view((2, 2), np.uint16, 8)[...] = [[1, 2], [3, 4]]
    assert list(gpu.pinned_heap.blocks[pinned.pointer][8:16]) == [1, 0, 2, 0, 3, 0, 4, 0]

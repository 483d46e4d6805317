"""Devices: what they say they are, what is said when there is none, and CUDA's errors as ours."""

import sys

import pytest

from ndp_rt.devices.cuda.driver import CudaDevice, translate_errors
from ndp_rt.errors import DeviceError, InputError, MissingExtraError
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import CUDARuntimeError


def test_a_device_says_what_it_is(gpu: FakeCuda) -> None:
    device = CudaDevice(0)
    assert (device.name, device.compute_capability, device.driver_version) == ("Fake GPU", "9.0", 13000)
    assert device.find_free_bytes() == (2**20, 2**20)


def test_a_device_that_is_not_there_is_refused(gpu: FakeCuda) -> None:
    with pytest.raises(DeviceError, match="machine's 1 GPUs, numbered from 0, got 'cuda:1'"):
        CudaDevice(1)


def test_no_driver_is_one_clear_error(gpu: FakeCuda) -> None:
    def refuse() -> int:
        raise CUDARuntimeError(35, "cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    gpu.module.cuda.runtime.getDeviceCount = refuse
    with pytest.raises(DeviceError, match=r"cudaErrorInsufficientDriver.*driver.*device='cpu'"):
        CudaDevice(0)


def test_no_cupy_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"ndp-rt\[gpu\]"):
        CudaDevice(0)


def test_errors_name_what_was_done_and_ours_pass_through() -> None:
    with pytest.raises(DeviceError, match=r"waiting: cudaErrorLaunchFailure.*restart"), translate_errors("waiting"):
        raise CUDARuntimeError(719, "cudaErrorLaunchFailure: unspecified launch failure")
    with pytest.raises(DeviceError, match=r"copying: the GPU is out of memory"), translate_errors("copying"):
        raise CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")
    with pytest.raises(InputError, match="^mine$"), translate_errors("waiting"):
        raise InputError("mine")

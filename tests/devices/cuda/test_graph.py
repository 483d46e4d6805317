"""Capturing: a graph repeats its work, and a refusal leaves nothing capturing."""

import pytest

from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.graph import capture_graph
from ndp_rt.errors import DeviceError, EngineError, InputError
from tests.fakes.fake_cupy import FakeCuda


def test_a_graph_repeats_what_was_captured(gpu: FakeCuda) -> None:
    device, ran = CudaDevice(0), []
    stream = device.cupy.cuda.Stream(non_blocking=True)
    graph = capture_graph(device, stream, lambda: stream.add(lambda: ran.append(1)))
    assert ran == []
    for _ in range(3):
        graph.launch(stream)
    stream.synchronize()
    assert ran == [1, 1, 1]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(EngineError("no"), DeviceError), (DeviceError("no"), DeviceError), (InputError("no"), InputError)],
)
def test_a_refusal_ends_the_capture(gpu: FakeCuda, error: Exception, raised: type[Exception]) -> None:
    device = CudaDevice(0)
    stream = device.cupy.cuda.Stream(non_blocking=True)

    def refuse() -> None:
        raise error

    with pytest.raises(raised, match="no"):
        capture_graph(device, stream, refuse)
    stream.synchronize()  # would raise while capturing


def test_a_device_that_captures_nothing_is_one_clear_error(gpu: FakeCuda) -> None:
    device = CudaDevice(0)
    gpu.machine.refuses_capture = "cudaErrorStreamCaptureUnsupported"
    with pytest.raises(DeviceError, match="cannot be captured as a CUDA graph: cudaErrorStreamCaptureUnsupported"):
        capture_graph(device, device.cupy.cuda.Stream(non_blocking=True), lambda: None)


def test_waiting_while_capturing_is_one_clear_error(gpu: FakeCuda) -> None:
    device = CudaDevice(0)
    stream = device.cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(DeviceError, match="cannot be captured"):
        capture_graph(device, stream, stream.synchronize)
    stream.synchronize()

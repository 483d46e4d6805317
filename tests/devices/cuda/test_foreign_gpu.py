"""Arrays of CuPy, PyTorch and PyCUDA on a GPU, whose producers are late on purpose."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.foreign import order_after_producer, take_image
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess import definition, launch
from ndp_rt.program.manifest import InputContract
from tests.tolerances import assert_close

pytestmark = pytest.mark.gpu

LATE_CYCLES = 2 * 10**8  # about 0.1 s, a thousand times what the pipeline needs to overtake
SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""
SHAPE = (1000, 1100, 3)
CONTRACT = InputContract()


def write_late(stream: Any, target: Any, fresh: Any) -> None:
    """Put a long wait, and then the new image, on a CuPy stream."""
    import cupy

    with stream:
        cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(LATE_CYCLES),))
        target[...] = fresh


def offer_interface(target: Any, stream: int | None) -> Any:
    facts = {"shape": target.shape, "typestr": "|u1", "data": (target.data.ptr, False), "version": 3, "stream": stream}
    return SimpleNamespace(__cuda_array_interface__=facts, owner=target)


def make_by_dlpack(target: Any, fresh: Any, take: Callable[[Any], Any]) -> Any:
    import cupy

    late = cupy.cuda.Stream(non_blocking=True)
    write_late(late, target, fresh)
    with late:
        return take(target)


def make_by_interface(target: Any, fresh: Any, take: Callable[[Any], Any]) -> Any:
    import cupy

    late = cupy.cuda.Stream(non_blocking=True)
    write_late(late, target, fresh)
    return take(offer_interface(target, late.ptr))


def make_on_the_default_stream(target: Any, fresh: Any, take: Callable[[Any], Any]) -> Any:
    import cupy

    write_late(cupy.cuda.Stream.null, target, fresh)
    return take(offer_interface(target, None))


def make_by_pytorch(target: Any, fresh: Any, take: Callable[[Any], Any]) -> Any:
    torch = pytest.importorskip("torch", reason="needs PyTorch with CUDA: pip install torch")
    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch with CUDA: pip install torch")
    tensor, source = torch.zeros(SHAPE, dtype=torch.uint8, device="cuda"), torch.from_dlpack(fresh)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(LATE_CYCLES)
        tensor.copy_(source)
        return take(tensor)


def make_by_pycuda(target: Any, fresh: Any, take: Callable[[Any], Any]) -> Any:
    import cupy

    pytest.importorskip("pycuda", reason="needs PyCUDA: pip install 'ndp-rt[pycuda]'")
    import pycuda.autoprimaryctx
    import pycuda.driver
    from pycuda import gpuarray

    array = gpuarray.zeros(SHAPE, np.uint8)
    pycuda.driver.Context.synchronize()
    with cupy.cuda.Stream.null:
        cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(LATE_CYCLES),))
    pycuda.driver.memcpy_dtod_async(array.gpudata, fresh.data.ptr, fresh.nbytes)
    return take(array)


def run(make: Callable[[Any, Any, Callable[[Any], Any]], Any], pixels: np.ndarray, *, waits: bool) -> np.ndarray:
    """Let `make` write the image late, and read it with the pipeline's own stream."""
    import cupy

    device, kernels, pipeline = CudaDevice(0), KernelSet(), cupy.cuda.Stream(non_blocking=True)
    device.activate()
    target, fresh, out = cupy.zeros(SHAPE, np.uint8), cupy.asarray(pixels), cupy.zeros((3, 256, 256), np.float32)
    launch.preprocess(kernels, target, out, CONTRACT, dtype="float32", stream=pipeline)  # compiles
    cupy.cuda.Device().synchronize()
    image = make(target, fresh, lambda array: take_image(array, device, pipeline.ptr))
    if waits:
        order_after_producer(image, pipeline, cupy.cuda.Event(disable_timing=True), device)
    launch.preprocess(kernels, image, out, CONTRACT, dtype="float32", stream=pipeline)
    pipeline.synchronize()
    result: np.ndarray = out.get(stream=pipeline)
    cupy.cuda.Device().synchronize()
    return result


@pytest.mark.parametrize(
    "make", [make_by_dlpack, make_by_interface, make_on_the_default_stream, make_by_pytorch, make_by_pycuda]
)
def test_a_late_producer_is_waited_for(rng: np.random.Generator, make: Callable[..., Any]) -> None:
    pixels = rng.integers(1, 256, SHAPE, dtype=np.uint8)
    assert_close(run(make, pixels, waits=True), definition.preprocess(pixels, 256, 256), "preprocess", "float32")


def test_without_the_wait_the_old_image_is_read(rng: np.random.Generator) -> None:
    pixels = rng.integers(1, 256, SHAPE, dtype=np.uint8)
    assert not run(make_by_interface, pixels, waits=False).any()

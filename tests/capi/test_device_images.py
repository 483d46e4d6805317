"""Images in a GPU's memory, from C to the fake GPU: read where they are, after the work of their stream."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt import Inspector
from tests.capi.library import FORMATS, Library
from tests.capi.test_same_answers import to_rgb
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import FakeStream
from tests.tolerances import assert_close


def put(gpu: FakeCuda, array: NDArray[Any], stream: FakeStream) -> int:
    """Start copying an array to the GPU on a stream, and return where it will be."""
    runtime = gpu.module.cuda.runtime
    source, pointer = runtime.hostAlloc(array.nbytes, 0), runtime.malloc(array.nbytes)
    gpu.pinned_heap.blocks[source][:] = np.frombuffer(array.tobytes(), np.uint8)
    runtime.memcpyAsync(pointer, source, array.nbytes, runtime.memcpyHostToDevice, stream.ptr)
    return int(pointer)


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_images_on_the_gpu_are_read_where_they_are(
    library: Library, fake_gpu: FakeCuda, tiny_bundle: Path, rng: np.random.Generator, pixel_format: str
) -> None:
    channel_count, dtype = FORMATS[pixel_format]
    shape = (70, 90) if channel_count == 1 else (70, 90, channel_count)
    array = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    late = FakeStream(fake_gpu.machine, is_eager=False)  # works only when somebody waits for it
    image = library.make_image(array, pixel_format)
    image.pixels = library.ffi.cast("void *", put(fake_gpu, array, late))
    image.memory, image.cuda_stream = library.lib.NDP_RT_MEMORY_CUDA, library.ffi.cast("void *", late.ptr)
    found = np.empty((70, 90), np.float32)
    result = library.make_result(found)
    handle = library.open(tiny_bundle, device="cuda", backend="fake")
    copied = fake_gpu.pinned_heap.allocation_count
    assert library.lib.ndp_rt_inspector_inspect(handle, image, result) == 0, library.last_error
    assert fake_gpu.pinned_heap.allocation_count == copied
    assert library.lib.ndp_rt_inspector_close(handle) == 0
    with Inspector.open(tiny_bundle, threads=1) as host:
        expected = host.inspect(to_rgb(array, pixel_format))
    assert_close(found, expected.anomaly_map, "map", "float32")
    assert_close(result.score, expected.score, "map", "float32")


def test_a_stream_of_null_is_the_default_stream(library: Library, tiny_bundle: Path, fake_gpu: FakeCuda) -> None:
    library.lib.ndp_rt_runtime_start(library.ffi.NULL)
    from ndp_rt.capi.buffers import LEGACY_STREAM, take_image  # is there once the library has started

    image = library.make("ndp_rt_image", pixel_format=library.lib.NDP_RT_PIXEL_BGRA8, width_px=3, height_px=2)
    image.stride_bytes, image.memory = 16, library.lib.NDP_RT_MEMORY_CUDA
    image.pixels = library.ffi.cast("void *", 0x1000)
    assert take_image(image).__cuda_array_interface__ == {
        "version": 3,
        "data": (0x1002, True),  # red is the third byte of blue, green, red, alpha
        "shape": (2, 3, 3),
        "strides": (16, 4, -1),
        "typestr": "|u1",
        "stream": LEGACY_STREAM,
    }


def test_an_inspector_on_the_cpu_refuses_images_on_a_gpu(library: Library, inspector: Any) -> None:
    array = np.zeros((8, 8), np.uint8)
    image = library.make_image(array, "GREY8")
    image.memory = library.lib.NDP_RT_MEMORY_CUDA
    calls = {
        "inspect": lambda: library.lib.ndp_rt_inspector_inspect(inspector, image, library.make_result()),
        "reference": lambda: library.lib.ndp_rt_inspector_set_reference(inspector, image),
        "large": lambda: library.lib.ndp_rt_inspector_inspect_large(inspector, image, 0, library.make_result()),
    }
    for call in calls.values():
        assert library.name(call()) == "INPUT" and "memory: expected " in library.last_error

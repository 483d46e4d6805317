"""A frame that another library writes on the fake GPU, on a stream of its own, and hands over before it is there."""

from typing import Any

import numpy as np

from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.fake_streams import FakeStream


class DeviceFrame:
    """See the module. `facts` are those of `__cuda_array_interface__`."""

    def __init__(self, gpu: FakeCuda, image: np.ndarray, stream: FakeStream) -> None:
        runtime = gpu.module.cuda.runtime
        source, self.pointer = runtime.hostAlloc(image.nbytes, 0), runtime.malloc(image.nbytes)
        gpu.pinned_heap.blocks[source][:] = np.frombuffer(image.tobytes(), np.uint8)
        runtime.memcpyAsync(self.pointer, source, image.nbytes, runtime.memcpyHostToDevice, stream.ptr)
        self.shape = image.shape
        self.facts: dict[str, Any] = {
            "version": 3,
            "shape": image.shape,
            "typestr": image.dtype.str,
            "data": (self.pointer, False),
            "stream": stream.ptr,
        }

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.facts

"""A rival whose engine reads and writes device addresses, with CuPy around it in place of kernels of its own."""

import contextlib
import importlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.peers.base import FloatArray, Image, check_images
from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.errors import ClosedError

SMOOTH_SIZE = (1, 1, 5, 5)
WARM_UP_COUNT = 3  # with a CUDA graph: a plain run, the capture, the first replay
ENGINE_RUN_COUNT = 20


class CupyArrays:
    """Arrays on a GPU and a stream for all that is done with them."""

    device = "cuda"

    def __init__(self) -> None:
        import cupy

        self.xp: Any = cupy
        self.ndimage: Any = importlib.import_module("cupyx.scipy.ndimage")
        self._cupyx: Any = importlib.import_module("cupyx")
        self.stream: Any = cupy.cuda.Stream(non_blocking=True)
        self.stream_pointer = int(self.stream.ptr)

    def use(self) -> contextlib.AbstractContextManager[Any]:
        """Put what is done within on the stream."""
        stream: contextlib.AbstractContextManager[Any] = self.stream
        return stream

    def make_pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._cupyx.empty_pinned(shape, dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def upload(self, host: Any, device: Any) -> None:
        self._copy(device.data.ptr, host.ctypes.data, host.nbytes, self.xp.cuda.runtime.memcpyHostToDevice)

    def download(self, device: Any, host: Any) -> None:
        self._copy(host.ctypes.data, device.data.ptr, host.nbytes, self.xp.cuda.runtime.memcpyDeviceToHost)

    def synchronize(self) -> None:
        self.stream.synchronize()

    def _copy(self, target: int, source: int, size_bytes: int, kind: int) -> None:
        self.xp.cuda.runtime.memcpyAsync(target, source, size_bytes, kind, self.stream_pointer)


class HostArrays:
    """The same on the CPU, for tests."""

    device = "cpu"
    stream_pointer = 0

    def __init__(self) -> None:
        self.xp: Any = np
        self.ndimage: Any = importlib.import_module("scipy.ndimage")

    def use(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def make_pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def upload(self, host: Any, device: Any) -> None:
        device[...] = host

    def download(self, device: Any, host: Any) -> None:
        host[...] = device

    def synchronize(self) -> None:
        """Nothing is on its way."""


Arrays = CupyArrays | HostArrays


def make_arrays(device: str) -> Arrays:
    """Return the arrays of "cuda" or "cpu"."""
    return CupyArrays() if device == "cuda" else HostArrays()


class ArrayRunner:
    """See `ndp_rt.bench.peers.base.PeerRunner`."""

    def __init__(self, engine: DeviceEngine, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Take over an engine from `image` to `map`, run it a few times and close it if that fails.

        `facts` gains `engine_ms`, what the engine takes by itself: CuPy's filters around it are no small part.
        """
        self.facts = dict(facts)
        self._arrays = arrays
        self._engine: DeviceEngine | None = engine
        try:
            n, c, h, w = (size or 0 for size in engine.inputs["image"].shape)
            xp, dtypes = arrays.xp, {spec.name: np.dtype(spec.dtype) for spec in _list_specs(engine)}
            with arrays.use():
                self._pictures = xp.empty((n, h, w, c), np.uint8)
                self._image = xp.empty((n, c, h, w), dtypes["image"])
                self._map = xp.empty((n, 1, h, w), dtypes["map"])
            self._pictures_host = arrays.make_pinned((n, h, w, c), np.uint8)
            self._maps_host = arrays.make_pinned((n, 1, h, w), np.float32)
            self._scores_host = arrays.make_pinned((n,), np.float32)
            engine.bind({"image": arrays.address(self._image), "map": arrays.address(self._map)})
            for _ in range(WARM_UP_COUNT):
                self.run([np.zeros((h, w, c), np.uint8)] * n)
            self.facts["engine_ms"] = float(np.median([self._time_engine(engine) for _ in range(ENGINE_RUN_COUNT)]))
        except BaseException:
            self.close()
            raise

    def run(self, images: Sequence[Image]) -> tuple[FloatArray, FloatArray]:
        engine, arrays = self._engine, self._arrays
        if engine is None:
            raise ClosedError("the rival is closed. Open another.")
        check_images(images, self._pictures_host.shape)
        for index, image in enumerate(images):
            self._pictures_host[index] = image
        with arrays.use():
            arrays.upload(self._pictures_host, self._pictures)
            prepare(arrays.xp, self._pictures, self._image)
            engine.enqueue(arrays.stream_pointer)
            smoothed = smooth(arrays.ndimage, self._map.astype(np.float32))
            arrays.download(smoothed, self._maps_host)
            arrays.download(smoothed.max(axis=(1, 2, 3)), self._scores_host)
            arrays.synchronize()
        return self._maps_host, self._scores_host

    def _time_engine(self, engine: DeviceEngine) -> float:
        with self._arrays.use():
            start = time.perf_counter()
            engine.enqueue(self._arrays.stream_pointer)
            self._arrays.synchronize()
            return (time.perf_counter() - start) * 1e3

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def prepare(xp: Any, pictures: Any, image: Any) -> None:
    """Write uint8 pictures [n, h, w, c] to image [n, c, h, w], 0 to 1."""
    xp.divide(pictures.transpose(0, 3, 1, 2), 255, out=image, dtype=np.float32, casting="unsafe")


def smooth(ndimage: Any, maps: Any) -> Any:
    """Return float32 maps [n, 1, h, w] after a 5 x 5 mean and a 5 x 5 median, borders replicated."""
    mean = ndimage.uniform_filter(maps, size=SMOOTH_SIZE, mode="nearest")
    return ndimage.median_filter(mean, size=SMOOTH_SIZE, mode="nearest")


def _list_specs(engine: DeviceEngine) -> list[Any]:
    return [*engine.inputs.values(), *engine.outputs.values()]

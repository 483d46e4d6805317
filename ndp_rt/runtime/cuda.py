"""Runs a program on a GPU: images go up, scores and maps come down, and several frames are on their way at once.

Three streams: uploads, the program's own, downloads. A batch has pinned memory for images and results and device memory
on both sides of the program, so that its tensors are free for the next frame as soon as the results were copied aside.
The host waits once for a batch, in `finish`. The score comes down first; a map follows if it was asked for, or later,
on demand. Images already on the GPU are read where they are.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.decision import not_finite
from ndp_rt.devices.cuda.driver import tolerate_errors, translate_errors
from ndp_rt.devices.cuda.foreign import ForeignImage, order_after_producer, share_streams, take_image
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.graphs.half_types import HELD_AS, widen
from ndp_rt.images.checks import Image, check_image, check_whole_size
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess.launch import preprocess
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.assets import AssetMaker, read_assets
from ndp_rt.runtime.cuda_program import CudaProgram
from ndp_rt.runtime.cuda_steps import SCORE
from ndp_rt.runtime.executor import closed
from ndp_rt.runtime.memory_layout import align
from ndp_rt.runtime.times import Times


class CudaBatch:
    """See `ndp_rt.runtime.executor.Batch`."""

    def __init__(self, program: CudaProgram) -> None:
        """Allocate what results need; memory for images comes with the first of each size that is larger."""
        self._device = program.device
        steps = program.find_steps(program.batch_sizes[-1])
        self.smoothed = steps.smoothed
        self._outputs = program.program.outputs
        self._has_own_score = OWN_SCORE in steps.results
        self._specs: dict[str, TensorSpec] = {name: steps.specs[name] for name in steps.results}
        self.offsets: dict[str, int] = {}
        end = 0
        for name, spec in self._specs.items():
            self.offsets[name] = end
            end += align(spec.size_bytes)
        self.results = DeviceMemory(self._device, end, "a batch's results")
        self.results_host = PinnedMemory(self._device, end)
        self.images: DeviceMemory | None = None
        self.images_host: PinnedMemory | None = None
        make_event = self._device.cupy.cuda.Event
        self.uploaded, self.produced, self.computed, self.done = (make_event(disable_timing=True) for _ in range(4))
        self._stream: Any = None  # of downloads
        self.fetched: set[str] = set()  # what was put on its way down
        self.size = 0
        self.times: list[Times] = []
        self.started_at = 0.0
        self.kept: Sequence[ForeignImage] = ()  # images on their way

    def reserve(self, image_bytes: int) -> tuple[DeviceMemory, PinnedMemory]:
        """Return memory for images, of at least so many bytes; the last run is finished."""
        if self.images is None or self.images_host is None or self.images.size_bytes < image_bytes:
            self._free_images()
            self.images = DeviceMemory(self._device, image_bytes, "a batch's images")
            self.images_host = PinnedMemory(self._device, image_bytes)
        return self.images, self.images_host

    def fetch(self, names: Sequence[str], stream: Any) -> None:
        """Put results, which lie aside on the device, on their way to the host."""
        for name in names:
            source, target = (one.pointer + self.offsets[name] for one in (self.results, self.results_host))
            self._device.copy("DeviceToHost", target, source, self.count_bytes(name), stream)
        self._stream, self.fetched = stream, self.fetched | set(names)

    def count_bytes(self, name: str) -> int:
        """Return the bytes of a result of the images that are on their way."""
        return replace(self._specs[name], shape=(self.size, *self._specs[name].shape[1:])).size_bytes

    def score(self, index: int) -> float:
        score = float(self._view(SCORE)[index])
        if not np.isfinite(score):  # the score's kernel passes a NaN on
            raise not_finite()
        return score

    def read_map(self, index: int) -> FloatArray:
        if self.smoothed not in self.fetched:
            with translate_errors("fetching a map"):
                self._device.activate()
                self.fetch((self.smoothed,), self._stream)
                self._stream.synchronize()
        smoothed: FloatArray = self._view(self.smoothed)[index, 0]
        if self._has_own_score and not np.isfinite(np.sum(smoothed)):  # else the score's kernel has seen it
            raise not_finite()
        return smoothed

    def copy_output(self, name: str, index: int) -> FloatArray:
        tensor = self._outputs[name]
        values = self._view(tensor)[index]
        return np.ascontiguousarray(widen(values, self._specs[tensor].dtype).transpose(1, 2, 0))

    def close(self) -> None:
        """Free everything; the caller has waited for the streams."""
        self._free_images()
        self.results.close()
        self.results_host.close()

    def _free_images(self) -> None:
        for one in (self.images, self.images_host):
            if one is not None:
                one.close()
        self.images = self.images_host = None

    def _view(self, name: str) -> NDArray[Any]:
        spec = self._specs[name]
        return self.results_host.view((self.size, *spec.fixed_shape[1:]), HELD_AS[spec.dtype], self.offsets[name])


class CudaExecutor:
    """See `ndp_rt.runtime.executor.Executor`."""

    stream_batch_count = 3  # one going up, one in the program, one coming down
    stage_names: tuple[str, ...] = ()  # one graph: `profile` takes it apart

    def __init__(
        self, bundle: Bundle, program: CudaProgram, kernels: KernelSet, maker: AssetMaker, *, channels: str
    ) -> None:
        """Take over an opened program."""
        self._contract = bundle.manifest.input
        self._program: CudaProgram | None = program
        self._device = program.device
        self.kernels = kernels
        self._maker = maker
        self._channels = channels
        self._lock = threading.Lock()  # of the program's stream: one batch is put on it at a time
        self._batches: list[CudaBatch] = []
        self._free_batches: list[CudaBatch] = []
        self.batch_sizes = program.batch_sizes
        with translate_errors("making streams"):
            self._upload_stream, self._download_stream = (
                self._device.cupy.cuda.Stream(non_blocking=True) for _ in range(2)
            )

    @property
    def engine_hash(self) -> str:
        return self.program.engine_hash

    @property
    def program(self) -> CudaProgram:
        """The program, for measuring; inspections go through `start` and `finish`."""
        if self._program is None:
            raise closed()
        return self._program

    def check_image(self, image: Any) -> tuple[int, int]:
        if isinstance(image, np.ndarray) or len(getattr(image, "shape", ())) < 2:
            check_image(image, self._channels)
        height_px, width_px = (int(side) for side in image.shape[:2])  # `start` looks at the rest of a device's array
        check_whole_size(height_px, width_px)
        return height_px, width_px

    def share_streams(self) -> Callable[[], None]:
        return share_streams(self._device)

    def make_batch(self) -> CudaBatch:
        with self._lock:
            program = self.program
            if self._free_batches:
                return self._free_batches.pop()
            batch = CudaBatch(program)
            self._batches.append(batch)
            return batch

    def release_batch(self, batch: CudaBatch) -> None:
        with self._lock:
            if self._program is not None:
                with translate_errors("waiting for the GPU"):
                    batch.done.synchronize()
                self._free_batches.append(batch)

    def start(
        self,
        batch: CudaBatch,
        images: Sequence[Any],
        size: int,
        *,
        outputs: Sequence[str] = (),
        wants_maps: bool = True,
    ) -> None:
        start = time.perf_counter()
        program_stream = self.program.stream
        self._device.activate()
        batch.size = size
        taken = [take_image(image, self._device, program_stream.ptr, self._channels) for image in images]
        sources = self._upload(batch, taken)
        with self._lock, translate_errors("putting a batch on the GPU"):
            program = self.program
            program.stream.wait_event(batch.uploaded)
            target = program.get_tensor(size, IMAGE)
            for index, (image, source) in enumerate(zip(taken, sources, strict=True)):
                order_after_producer(image, program.stream, batch.produced, self._device)
                preprocess(
                    self.kernels,
                    source,
                    target[index],
                    self._contract,
                    channels=self._channels,
                    dtype=program.input_dtype,
                    stream=program.stream,
                )
            batch.kept = taken  # until `finish`, since the GPU reads those that lie there
            program.enqueue(size)
            self._put_aside(program, batch, outputs, wants_maps)
        now = time.perf_counter()
        batch.started_at = now
        batch.times = [Times(preprocess_ms=(now - start) * 1e3 / len(images)) for _ in images]

    def finish(self, batch: CudaBatch) -> None:
        if self._program is None:
            raise closed()
        self._device.activate()
        with translate_errors("waiting for the GPU"):
            batch.done.synchronize()
        batch.kept = ()
        elapsed_ms = (time.perf_counter() - batch.started_at) * 1e3
        for times in batch.times:
            times.engine_ms = elapsed_ms / len(batch.times)

    def run(self, images: FloatArray) -> tuple[FloatArray, FloatArray]:
        with self._lock:
            self._device.activate()
            return self.program.run(images)

    def profile(self) -> dict[str, float]:
        from ndp_rt.runtime.cuda_profile import profile_steps

        with self._lock:
            self._device.activate()
            return profile_steps(self.program, self.batch_sizes[0])

    def set_asset(self, image: Image) -> None:
        maker = self._maker
        name, picture = maker.name, maker.prepare_picture(image, self._channels)
        with self._lock:
            program = self.program
            self._device.activate()
            made_from = maker.spec.made_from
            found = program.compute_tensors(picture, maker.stages, tuple(made_from.values()))
        tensors = {own: found[made] for own, made in made_from.items()}
        assets = {**read_assets(program.bundle, program.program), name: maker.round_tensors(tensors)}
        prepared = program.prepare_assets(assets)
        with self._lock:
            self.program.use_assets(prepared)

    def close(self) -> None:
        with self._lock:
            program, self._program = self._program, None
            if program is None:
                return
            program.close()  # waits for the program's stream
            for stream in (self._upload_stream, self._download_stream):
                with tolerate_errors("closing"):
                    stream.synchronize()
            for batch in self._batches:
                with tolerate_errors("closing"):
                    batch.close()
            self._batches, self._free_batches = [], []

    def _upload(self, batch: CudaBatch, images: Sequence[ForeignImage]) -> list[Any]:
        """Put the images that lie on the host on their way up; return what the GPU reads for each."""
        offsets, end = {}, 0
        for index, image in enumerate(images):
            if image.device_index is None:
                offsets[index] = end
                end += align(image.host_array.nbytes)
        if not offsets:
            return list(images)
        block, pinned = batch.reserve(end)
        sources: list[Any] = list(images)
        for index, offset in offsets.items():
            array = images[index].host_array
            pinned.view(array.shape, array.dtype.newbyteorder("="), offset)[...] = array  # from any strides and order
            sources[index] = block.view(array.shape, array.dtype.name, offset)
        with translate_errors("uploading images"):
            self._device.copy("HostToDevice", block.pointer, pinned.pointer, end, self._upload_stream)
            batch.uploaded.record(self._upload_stream)
        return sources

    def _put_aside(self, program: CudaProgram, batch: CudaBatch, outputs: Sequence[str], wants_maps: bool) -> None:
        """Copy the results aside on the program's stream, then to the host on the download stream, scores first."""
        others = tuple(program.program.outputs[output] for output in outputs if output != MAP)
        for name in (SCORE, batch.smoothed, *others):
            tensor = program.get_tensor(batch.size, name)
            target = batch.results.pointer + batch.offsets[name]
            self._device.copy("DeviceToDevice", target, tensor.data.ptr, tensor.nbytes, program.stream)
        batch.computed.record(program.stream)
        self._download_stream.wait_event(batch.computed)
        batch.fetched = set()
        batch.fetch((SCORE, *((batch.smoothed,) if wants_maps else ()), *others), self._download_stream)
        batch.done.record(self._download_stream)

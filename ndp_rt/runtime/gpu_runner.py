"""The runner on a GPU: images go up, results come down, and several frames are on their way at once.

Three streams: uploads, the plan's own, downloads. A slot has pinned memory for images and results and device memory on
both sides of the plan, so that the plan's buffers are free for the next frame as soon as its results were copied aside.
The host waits once for a batch, in `finish`. Images already on the GPU are read where they are.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.decision import not_finite
from ndp_rt.devices.cuda.driver import CudaDevice, tolerate_errors, translate_errors
from ndp_rt.devices.cuda.foreign import ForeignImage, order_after_producer, take_image
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.errors import ClosedError
from ndp_rt.graphs.half_types import HELD_AS, widen
from ndp_rt.images.checks import Image, check_image, check_whole_size
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.preprocess import launch
from ndp_rt.runtime.gpu import GpuPlan
from ndp_rt.runtime.times import Times

FloatArray = NDArray[np.float32]


class GpuSlot:
    """See `ndp_rt.runtime.runner.Slot`."""

    def __init__(self, device: CudaDevice, plan: GpuPlan) -> None:
        """Allocate what results need; memory for images comes with the first of each size that is larger."""
        self._device = device
        size = plan.batch_sizes[-1]
        one = plan.get_tensor(plan.batch_sizes[0], "smoothed").shape[2:]
        self._map_shape = (int(one[0]), int(one[1]))
        self._dtype = plan.input_dtype
        map_bytes = 4 * self._map_shape[0] * self._map_shape[1]
        picture_bytes = 3 * map_bytes * (4 if self._dtype == "float32" else 2) // 4
        self.offsets = {"smoothed": 0, "score": size * map_bytes, "reconstruction": size * map_bytes + _align(4 * size)}
        result_bytes = self.offsets["reconstruction"] + size * picture_bytes
        self.results = DeviceMemory(device, result_bytes, "a slot's results")
        self.results_host = PinnedMemory(device, result_bytes)
        self.images: DeviceMemory | None = None
        self.images_host: PinnedMemory | None = None
        make_event = device.cupy.cuda.Event
        self.uploaded, self.produced, self.computed, self.done = (make_event(disable_timing=True) for _ in range(4))
        self.image_count = 0
        self.size = 0
        self.times: list[Times] = []
        self.started_at = 0.0
        self.kept: Sequence[ForeignImage] = ()  # images on their way

    def reserve(self, image_bytes: int) -> tuple[DeviceMemory, PinnedMemory]:
        """Return memory for images, of at least so many bytes; the slot's last batch is finished."""
        if self.images is None or self.images_host is None or self.images.size_bytes < image_bytes:
            self._free_images()
            self.images = DeviceMemory(self._device, image_bytes, "a slot's images")
            self.images_host = PinnedMemory(self._device, image_bytes)
        return self.images, self.images_host

    def smooth(self, index: int) -> FloatArray:
        smoothed: FloatArray = self._view("smoothed", (self.size, *self._map_shape), np.float32)[index]
        if not np.isfinite(self._view("score", (self.size,), np.float32)[index]):  # `score` passes a NaN on
            raise not_finite()
        return smoothed

    def copy_reconstruction(self, index: int) -> FloatArray:
        shape = (self.size, 3, *self._map_shape)
        values = self._view("reconstruction", shape, HELD_AS[self._dtype])[index]
        return np.ascontiguousarray(widen(values, self._dtype).transpose(1, 2, 0))

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

    def _view(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return self.results_host.view(shape, dtype, self.offsets[name])


class GpuRunner:
    """See `ndp_rt.runtime.runner.Runner`."""

    stream_slot_count = 3  # one going up, one in the plan, one coming down
    stage_names: tuple[str, ...] = ()  # one graph: `ndp-rt bench` takes it apart

    def __init__(self, bundle: Bundle, plan: GpuPlan, kernels: KernelSet, channels: str) -> None:
        """Take over an opened plan."""
        self._bundle = bundle
        self._contract = bundle.manifest.input
        self._plan: GpuPlan | None = plan
        self._device = plan.device
        self._kernels = kernels
        self._channels = channels
        self._lock = threading.Lock()  # of the plan's stream: one batch is put on it at a time
        self._slots: list[GpuSlot] = []
        self._free_slots: list[GpuSlot] = []
        self.batch_sizes = plan.batch_sizes
        with translate_errors("making streams"):
            self._upload_stream, self._download_stream = (
                self._device.cupy.cuda.Stream(non_blocking=True) for _ in range(2)
            )

    @property
    def engine_hash(self) -> str:
        return self._open_plan().engine_hash

    @property
    def plan(self) -> GpuPlan:
        """The plan, for measuring; inspections go through `start` and `finish`."""
        return self._open_plan()

    def check_image(self, image: Any) -> tuple[int, int]:
        if isinstance(image, np.ndarray) or len(getattr(image, "shape", ())) < 2:
            check_image(image, self._channels)
        height_px, width_px = (int(side) for side in image.shape[:2])  # `start` looks at the rest of a device's array
        check_whole_size(height_px, width_px)
        return height_px, width_px

    def make_slot(self) -> GpuSlot:
        with self._lock:
            plan = self._open_plan()
            if self._free_slots:
                return self._free_slots.pop()
            slot = GpuSlot(self._device, plan)
            self._slots.append(slot)
            return slot

    def release_slot(self, slot: GpuSlot) -> None:
        with self._lock:
            if self._plan is not None:
                with translate_errors("waiting for the GPU"):
                    slot.done.synchronize()
                self._free_slots.append(slot)

    def start(self, slot: GpuSlot, images: Sequence[Any], size: int, *, keep_reconstruction: bool = False) -> None:
        start = time.perf_counter()
        plan_stream = self._open_plan().stream
        self._device.activate()
        slot.image_count, slot.size = len(images), size
        taken = [take_image(image, self._device, plan_stream.ptr, self._channels) for image in images]
        sources = self._upload(slot, taken)
        with self._lock, translate_errors("putting a batch on the GPU"):
            plan = self._open_plan()
            plan.stream.wait_event(slot.uploaded)
            target = plan.get_tensor(size, "image")
            for index, (image, source) in enumerate(zip(taken, sources, strict=True)):
                order_after_producer(image, plan.stream, slot.produced, self._device)
                launch.preprocess(
                    self._kernels,
                    source,
                    target[index],
                    self._contract,
                    channels=self._channels,
                    dtype=plan.input_dtype,
                    stream=plan.stream,
                )
            slot.kept = taken  # until `finish`, since the GPU reads those that lie there
            plan.enqueue(size)
            self._fetch(plan, slot, keep_reconstruction)
        now = time.perf_counter()
        slot.started_at = now
        slot.times = [Times(preprocess_ms=(now - start) * 1e3 / len(images)) for _ in images]

    def finish(self, slot: GpuSlot) -> None:
        self._open_plan()
        self._device.activate()
        with translate_errors("waiting for the GPU"):
            slot.done.synchronize()
        slot.kept = ()
        elapsed_ms = (time.perf_counter() - slot.started_at) * 1e3
        for times in slot.times:
            times.engine_ms = elapsed_ms / slot.image_count

    def set_reference(self, image: Image) -> None:
        # Imported here: this alone needs OpenCV and safetensors, which a machine that runs engines may lack.
        from ndp_rt.images.preprocess import Preprocessor
        from ndp_rt.runtime.reference_image import make_reference_file, read_features, round_to_picture

        prepared = np.empty((1, 3, self._contract.height_px, self._contract.width_px), np.float32)
        Preprocessor(self._contract, channels=self._channels)(image, prepared[0])
        round_to_picture(prepared)
        with self._lock:
            plan = self._open_plan()
            self._device.activate()
            features = plan.compute_features(prepared)
        reference = plan.make_reference(read_features(make_reference_file(self._bundle, features)))
        with self._lock:
            self._open_plan().use_reference(reference)

    def close(self) -> None:
        with self._lock:
            plan, self._plan = self._plan, None
            if plan is None:
                return
            plan.close()  # waits for the plan's stream
            for stream in (self._upload_stream, self._download_stream):
                with tolerate_errors("closing"):
                    stream.synchronize()
            for slot in self._slots:
                with tolerate_errors("closing"):
                    slot.close()
            self._slots, self._free_slots = [], []

    def _upload(self, slot: GpuSlot, images: Sequence[ForeignImage]) -> list[Any]:
        """Put the images that lie on the host on their way up; return what the GPU reads for each."""
        offsets, end = {}, 0
        for index, image in enumerate(images):
            if image.device_index is None:
                offsets[index] = end
                end += _align(image.host_array.nbytes)
        if not offsets:
            return list(images)
        block, pinned = slot.reserve(end)
        sources: list[Any] = list(images)
        for index, offset in offsets.items():
            array = images[index].host_array
            pinned.view(array.shape, array.dtype.newbyteorder("="), offset)[...] = array  # from any strides and order
            sources[index] = block.view(array.shape, array.dtype.name, offset)
        with translate_errors("uploading images"):
            runtime = self._device.cupy.cuda.runtime
            runtime.memcpyAsync(block.pointer, pinned.pointer, end, runtime.memcpyHostToDevice, self._upload_stream.ptr)
            slot.uploaded.record(self._upload_stream)
        return sources

    def _fetch(self, plan: GpuPlan, slot: GpuSlot, keep_reconstruction: bool) -> None:
        """Copy the results aside on the plan's stream, then to the host on the download stream."""
        runtime = self._device.cupy.cuda.runtime
        names = ("smoothed", "score", *(("reconstruction",) if keep_reconstruction else ()))
        for name in names:
            tensor = plan.get_tensor(slot.size, name)
            target = slot.results.pointer + slot.offsets[name]
            runtime.memcpyAsync(target, tensor.data.ptr, tensor.nbytes, runtime.memcpyDeviceToDevice, plan.stream.ptr)
        slot.computed.record(plan.stream)
        self._download_stream.wait_event(slot.computed)
        for name in names:
            tensor, offset = plan.get_tensor(slot.size, name), slot.offsets[name]
            runtime.memcpyAsync(
                slot.results_host.pointer + offset,
                slot.results.pointer + offset,
                tensor.nbytes,
                runtime.memcpyDeviceToHost,
                self._download_stream.ptr,
            )
        slot.done.record(self._download_stream)

    def _open_plan(self) -> GpuPlan:
        if self._plan is None:
            raise ClosedError("the inspector is closed; open another with Inspector.open().")
        return self._plan


def _align(size_bytes: int) -> int:
    return -(-size_bytes // 256) * 256

"""The runner on a CPU: OpenCV before and after, a plan over host arrays between."""

import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.errors import ClosedError
from ndp_rt.image_checks import Image, check_image, check_whole_size
from ndp_rt.imaging import Preprocessor
from ndp_rt.plan.base import Plan
from ndp_rt.plan.reference_image import make_reference_file, read_features, round_to_picture
from ndp_rt.postprocess import Smoother
from ndp_rt.specs import InputContract
from ndp_rt.times import Times

FloatArray = NDArray[np.float32]


class HostSlot:
    """See `ndp_rt.plan.runner.Slot`."""

    def __init__(self, contract: InputContract, batch_sizes: Sequence[int], channels: str) -> None:
        """Allocate for the largest of `batch_sizes`."""
        shape = (max(batch_sizes), 3, contract.height_px, contract.width_px)
        self.preprocess = Preprocessor(contract, channels=channels)
        self.image_count = 0
        self.size = 0
        self.times: list[Times] = []
        self.maps = np.empty((shape[0], 1, *shape[2:]), np.float32)
        batch, reconstructions = np.zeros(shape, np.float32), np.empty(shape, np.float32)
        # Zeros, because the unused end of a batch is computed too. Engines keep the arrays of the last call bound and
        # know them by identity, so each size has its own views.
        self.inputs = {n: batch[:n] for n in batch_sizes}
        self.outputs = {n: (self.maps[:n], reconstructions[:n]) for n in batch_sizes}
        self._smoother = Smoother(contract.height_px, contract.width_px)

    def smooth(self, index: int) -> FloatArray:
        return self._smoother(self.maps[index, 0])

    def copy_reconstruction(self, index: int) -> FloatArray:
        _, reconstructions = self.outputs[self.size]
        picture: FloatArray = reconstructions[index].transpose(1, 2, 0).copy()
        return picture


class HostRunner:
    """See `ndp_rt.plan.runner.Runner`."""

    stream_slot_count = 2  # one in the engine, one being filled

    def __init__(self, bundle: Bundle, plan: Plan, channels: str) -> None:
        """Take over an opened plan."""
        self._bundle = bundle
        self._contract = bundle.manifest.input
        self._plan: Plan | None = plan
        self._plan_lock = threading.Lock()
        self._channels = channels
        self.batch_sizes = plan.batch_sizes
        self.stage_names = plan.stage_names

    @property
    def engine_hash(self) -> str:
        return self._open_plan().engine_hash

    def check_image(self, image: Image) -> tuple[int, int]:
        check_image(image, self._channels)
        height_px, width_px = image.shape[:2]
        check_whole_size(height_px, width_px)
        return height_px, width_px

    def make_slot(self) -> HostSlot:
        return HostSlot(self._contract, self.batch_sizes, self._channels)

    def release_slot(self, slot: HostSlot) -> None:
        """Nothing to do: its memory goes with the last who knows it."""

    def start(self, slot: HostSlot, images: Sequence[Image], size: int, *, keep_reconstruction: bool = False) -> None:
        slot.image_count, slot.size = len(images), size
        slot.times = []
        for image, out in zip(images, slot.inputs[size], strict=False):
            start = time.perf_counter()
            slot.preprocess(image, out)
            slot.times.append(Times(preprocess_ms=(time.perf_counter() - start) * 1e3))

    def finish(self, slot: HostSlot) -> None:
        with self._plan_lock:
            plan = self._open_plan()
            start = time.perf_counter()
            plan.run(slot.inputs[slot.size], *slot.outputs[slot.size])
            whole = Times(engine_ms=(time.perf_counter() - start) * 1e3, stages_ms=dict(plan.stage_timings_ms))
        for times in slot.times:
            times.add_run(whole.share(slot.image_count))

    def set_reference(self, image: Image) -> None:
        prepared = np.empty((1, 3, self._contract.height_px, self._contract.width_px), np.float32)
        Preprocessor(self._contract, channels=self._channels)(image, prepared[0])
        round_to_picture(prepared)
        with self._plan_lock:
            features = self._open_plan().compute_features(prepared)
            plan = self._open_plan()
        reference = plan.make_reference(read_features(make_reference_file(self._bundle, features)))
        with self._plan_lock:
            self._open_plan().use_reference(reference)

    def close(self) -> None:
        with self._plan_lock:
            plan, self._plan = self._plan, None
            if plan is not None:
                plan.close()

    def _open_plan(self) -> Plan:
        if self._plan is None:
            raise ClosedError("the inspector is closed; open another with Inspector.open().")
        return self._plan

"""The runner on a CPU: OpenCV before and after, a plan over host arrays between."""

import contextlib
import threading
import time
import weakref
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.open import Bundle
from ndp_rt.decide.smooth import Smoother
from ndp_rt.engines.engine import Call
from ndp_rt.errors import ClosedError, EngineError
from ndp_rt.images.checks import Image, check_image, check_whole_size
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.program.manifest import InputContract
from ndp_rt.runtime.plan import OverlappingPlan, Plan
from ndp_rt.runtime.reference_image import make_reference_file, read_features, round_to_picture
from ndp_rt.runtime.times import Times

FloatArray = NDArray[np.float32]


class HostSlot:
    """See `ndp_rt.runtime.runner.Slot`."""

    def __init__(self, contract: InputContract, batch_sizes: Sequence[int], *, is_shared: bool = False) -> None:
        """Allocate for the largest of `batch_sizes`; see `HostRunner.shared_slots`."""
        shape = (max(batch_sizes), 3, contract.height_px, contract.width_px)
        self.image_count = 0
        self.size = 0
        self.times: list[Times] = []
        self.maps = np.empty((shape[0], 1, *shape[2:]), np.float32)
        batch, reconstructions = np.zeros(shape, np.float32), np.empty(shape, np.float32)
        # Zeros, because the unused end of a batch is computed too. Engines keep the arrays of the last call bound and
        # know them by identity, so each size has its own views.
        self.inputs = {n: batch[:n] for n in batch_sizes}
        self.outputs = {n: (self.maps[:n], reconstructions[:n]) for n in batch_sizes}
        self.is_shared = is_shared
        self.run: Call | None = None  # the call that was started last; None: `finish` makes it
        self._runs: dict[tuple[int, bool], Call] = {}
        self._smoother = Smoother(contract.height_px, contract.width_px)

    def bind(self, plan: OverlappingPlan, *, is_alone: bool) -> Call:
        """Return the call for the batch that is in the slot, the same as last time where it still is open."""
        run = self._runs.get((self.size, is_alone))
        if run is None or not run.is_open:
            self._runs = {key: one for key, one in self._runs.items() if one.is_open}
            run = plan.bind(self.inputs[self.size], *self.outputs[self.size], is_alone=is_alone)
            self._runs[self.size, is_alone] = run
        return run

    @property
    def is_computing(self) -> bool:
        run = self.run  # `start` may change it meanwhile, in another thread
        return run is not None and run.is_computing

    def wait(self) -> None:
        """Wait until nothing computes in the slot's memory any more, however it ends."""
        run = self.run
        if run is not None and run.is_computing:
            with contextlib.suppress(ClosedError, EngineError):  # closed: `close` has waited for it
                run.wait()

    def smooth(self, index: int) -> FloatArray:
        return self._smoother(self.maps[index, 0])

    def copy_reconstruction(self, index: int) -> FloatArray:
        _, reconstructions = self.outputs[self.size]
        picture: FloatArray = reconstructions[index].transpose(1, 2, 0).copy()
        return picture


class HostRunner:
    """See `ndp_rt.runtime.runner.Runner`.

    A batch that is started while no other computes gets all threads, so that it is done soonest; those that are started
    while others compute share the threads out, one for each, as no barriers between threads means more done in all.
    """

    def __init__(self, bundle: Bundle, plan: Plan, channels: str) -> None:
        """Take over an opened plan."""
        self._bundle = bundle
        self._contract = bundle.manifest.input
        self._plan: Plan | None = plan
        self._plan_lock = threading.Lock()
        self._started: weakref.WeakSet[HostSlot] = weakref.WeakSet()  # what may compute, until it is forgotten
        self._shared_slots: list[HostSlot] = []
        self._preprocessors: list[Preprocessor] = []  # those that no thread uses now; each has the scratch of an image
        self._channels = channels
        self.batch_sizes = plan.batch_sizes
        self.stage_names = plan.stage_names
        self.parallel_count = plan.stream_count if isinstance(plan, OverlappingPlan) else 0

    @property
    def stream_slot_count(self) -> int:
        return max(1, self.parallel_count) + 1  # what computes, and one that is filled or emptied

    @property
    def engine_hash(self) -> str:
        return self._open_plan().engine_hash

    def check_image(self, image: Image) -> tuple[int, int]:
        check_image(image, self._channels)
        height_px, width_px = image.shape[:2]
        check_whole_size(height_px, width_px)
        return height_px, width_px

    def make_slot(self) -> HostSlot:
        return HostSlot(self._contract, self.batch_sizes)

    @property
    def shared_slots(self) -> Sequence[HostSlot]:
        """Slots for one of many batches each, enough to keep everything busy, made when they are first asked for.

        None ever takes all threads, even where no other batch computes yet.
        """
        if not self._shared_slots:
            self._shared_slots = [
                HostSlot(self._contract, self.batch_sizes, is_shared=True) for _ in range(self.stream_slot_count)
            ]
        return self._shared_slots

    def release_slot(self, slot: HostSlot) -> None:
        """Wait for what computes in it; its memory goes with the last who knows it."""
        slot.wait()

    def start(self, slot: HostSlot, images: Sequence[Image], size: int, *, keep_reconstruction: bool = False) -> None:
        slot.wait()  # nothing computes there, unless the caller was interrupted between `start` and `finish`
        slot.image_count, slot.size = len(images), size
        slot.times = []
        preprocess = self._take_preprocessor()
        for image, out in zip(images, slot.inputs[size], strict=False):
            start = time.perf_counter()
            preprocess(image, out)
            slot.times.append(Times(preprocess_ms=(time.perf_counter() - start) * 1e3))
        self._preprocessors.append(preprocess)
        slot.run = None
        with self._plan_lock:
            plan = self._open_plan()
            if self.parallel_count:
                is_alone = not slot.is_shared and not any(one.is_computing for one in self._started)
                # Not asked by isinstance() as in __init__: that takes 60 us with a protocol.
                slot.run = slot.bind(cast(OverlappingPlan, plan), is_alone=is_alone)
                self._started.add(slot)
                slot.run.start()

    def finish(self, slot: HostSlot) -> None:
        if slot.run is not None:
            self._open_plan()
            whole = Times(engine_ms=slot.run.wait())
            for times in slot.times:
                times.add_run(whole.share(slot.image_count))
            return
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
            for slot in self._started:
                slot.wait()
            self._started.clear()
            self._shared_slots = []
            if plan is not None:
                plan.close()

    def _take_preprocessor(self) -> Preprocessor:
        """Return one that is this thread's until it is put back; there are as many as threads that use one at once."""
        try:
            return self._preprocessors.pop()
        except IndexError:
            return Preprocessor(self._contract, channels=self._channels)

    def _open_plan(self) -> Plan:
        if self._plan is None:
            raise ClosedError("the inspector is closed; open another with Inspector.open().")
        return self._plan

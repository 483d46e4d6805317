"""Runs a program on the host: OpenCV before and after it, engines and ops over NumPy arrays between."""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.open import Bundle
from ndp_rt.bundle.programs import list_tensors
from ndp_rt.config import MAX_IMAGE_PX, MAX_SIDE_PX
from ndp_rt.decide.decision import not_finite
from ndp_rt.decide.score import score_map
from ndp_rt.engines.engine import Call, Engine, OverlappingEngine
from ndp_rt.errors import ClosedError, EngineError, InputError
from ndp_rt.images.checks import Image, check_image, check_kind, check_whole_size
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.kernels.smooth.host import smooth_map
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.assets import AssetMaker, hash_asset, read_assets
from ndp_rt.runtime.executor import closed
from ndp_rt.runtime.host_step import HostStep, Tensors
from ndp_rt.runtime.memory_layout import find_lifetimes, lay_out_buffers
from ndp_rt.runtime.times import Times

Engines = dict[int, dict[str, Engine]]  # batch size -> stage -> engine
PROFILE_RUNS = 5  # of which the least time is a step's


class HostBatch:
    """See `ndp_rt.runtime.executor.Batch`."""

    def __init__(self, executor: "HostExecutor", *, is_shared: bool = False) -> None:
        """Allocate for the executor's largest batch; see `HostExecutor.shared_batches`."""
        sizes, specs = executor.batch_sizes, executor.tensors
        outputs = dict.fromkeys(executor.program.outputs.values())
        # Zeros, because the unused end of a batch is computed too.
        image = np.zeros(specs[IMAGE].with_batch(max(sizes)), np.float32)
        whole = {IMAGE: image} | {name: np.empty(specs[name].with_batch(max(sizes)), np.float32) for name in outputs}
        # Engines keep the arrays of the last call bound and know them by identity, so each size has its own views.
        self.tensors: dict[int, Tensors] = {
            n: {name: array[:n] for name, array in whole.items()} | executor.between[n] for n in sizes
        }
        self.maps = whole[executor.program.outputs[MAP]]
        self.size = 0
        self.times: list[Times] = []
        self.is_shared = is_shared
        self.call: Call | None = None  # what was started last; None: `finish` makes the run
        self.calls: dict[tuple[int, bool], Call] = {}
        self._outputs = executor.program.outputs
        self._own_scores = whole.get(OWN_SCORE)
        self._rules = executor.bundle.manifest.decision
        self._smoothed, self._scratch = (np.empty(self.maps.shape[2:], np.float32) for _ in range(2))

    def bind(self, engine: OverlappingEngine, *, is_alone: bool) -> Call:
        """Return a new call for the batch's tensors, and keep it; those of closed engines go."""
        self.calls = {key: one for key, one in self.calls.items() if one.is_open}
        tensors = self.tensors[self.size]
        call = self.calls[self.size, is_alone] = engine.bind(tensors, tensors, is_alone=is_alone)
        return call

    @property
    def is_computing(self) -> bool:
        call = self.call  # `start` may change it meanwhile, in another thread
        return call is not None and call.is_computing

    def wait(self) -> None:
        """Wait until nothing computes in the batch's memory any more, however it ends."""
        if self.is_computing:
            with contextlib.suppress(ClosedError, EngineError):  # closed: `close` has waited for it
                assert self.call is not None
                self.call.wait()

    def score(self, index: int) -> float:
        raw, rules = self.maps[index, 0], self._rules
        if not np.isfinite(np.sum(raw)):  # one NaN or infinity makes the sum one
            raise not_finite()
        if rules.smooth == "none":
            np.copyto(self._smoothed, raw)
        else:
            smooth_map(raw, self._smoothed, self._scratch, rules.smooth_size_px)
        if rules.score != "output":
            return score_map(self._smoothed, rules)
        assert self._own_scores is not None  # the bundle was checked
        score = float(self._own_scores[index])
        if not np.isfinite(score):
            raise not_finite()
        return score

    def read_map(self, index: int) -> FloatArray:
        return self._smoothed

    def copy_output(self, name: str, index: int) -> FloatArray:
        picture: FloatArray = self.tensors[self.size][self._outputs[name]][index].transpose(1, 2, 0).copy()
        return picture


class HostExecutor:
    """See `ndp_rt.runtime.executor.Executor`.

    Where the program is one engine, a batch that is started while no other computes gets all threads, so that it is
    done soonest; those that are started while others compute share the threads out, one for each, as no barriers
    between threads means more done in all.
    """

    def __init__(
        self, bundle: Bundle, plan: str, engines: Engines, maker: AssetMaker, *, channels: str, engine_hash: str
    ) -> None:
        """Take over loaded engines.

        Args:
            plan: the name of one of its programs for the CPU.
            engines: by batch size and stage.
            maker: makes assets of images, and engines with other assets in their graphs.
            channels: order of the channels of images.
            engine_hash: names the engines.
        """
        manifest = bundle.manifest
        _, self.program = manifest.find_program("cpu", plan)
        self.bundle = bundle
        self.batch_sizes = tuple(sorted(engines))
        self.tensors: dict[str, TensorSpec] = list_tensors(manifest, self.program.steps)
        self._engines: Engines = {size: dict(engines[size]) for size in self.batch_sizes}
        self._maker = maker
        self._channels = channels
        self._engine_hash = engine_hash
        self._steps = [HostStep(manifest, step, self.tensors) for step in self.program.steps]
        assets = read_assets(bundle, self.program)
        self._digests = {name: hash_asset(tensors) for name, tensors in assets.items()}
        for step in self._steps:
            step.use(step.prepare(assets))
        self.between = {size: self._allocate(size) for size in self.batch_sizes}
        self._lock = threading.Lock()  # of engines and ops: one run at a time, swaps between runs
        self._started: weakref.WeakSet[HostBatch] = weakref.WeakSet()  # what may compute, until it is forgotten
        self._shared: list[HostBatch] = []
        self._preprocessors: list[Preprocessor] = []  # those that no thread uses now; each has the scratch of an image
        self._is_single = len(self._steps) == 1 and bool(self.program.steps[0].engine)
        self.stage_names = () if self._is_single else tuple(dict.fromkeys(step.label for step in self._steps))
        first = [next(iter(self._engines[size].values())) for size in self.batch_sizes] if self._is_single else []
        can_overlap = bool(first) and all(isinstance(one, OverlappingEngine) for one in first)
        self.parallel_count = min((getattr(one, "stream_count", 0) for one in first), default=0) if can_overlap else 0

    @property
    def stream_batch_count(self) -> int:
        return max(1, self.parallel_count) + 1  # what computes, and one that is filled or emptied

    @property
    def engine_hash(self) -> str:
        self._need_engines()
        return "+".join((self._engine_hash, *self._digests.values()))

    def check_image(self, image: Image) -> tuple[int, int]:
        if not isinstance(image, np.ndarray):
            check_image(image, self._channels)
        check_kind(image.dtype, image.shape, self._channels)
        height_px, width_px = image.shape[:2]
        if max(height_px, width_px) > MAX_SIDE_PX or height_px * width_px > MAX_IMAGE_PX:
            check_whole_size(height_px, width_px)
        return height_px, width_px

    def share_streams(self) -> Callable[[], None]:
        return lambda: None

    def make_batch(self) -> HostBatch:
        self._need_engines()
        return HostBatch(self)

    @property
    def shared_batches(self) -> Sequence[HostBatch]:
        """Batches for many at once, enough to keep everything busy, made when they are first asked for.

        None ever takes all threads, even where no other computes yet.
        """
        if not self._shared:
            self._shared = [HostBatch(self, is_shared=True) for _ in range(self.stream_batch_count)]
        return self._shared

    def release_batch(self, batch: HostBatch) -> None:
        """Wait for what computes in it; its memory goes with the last who knows it."""
        batch.wait()

    def start(
        self,
        batch: HostBatch,
        images: Sequence[Image],
        size: int,
        *,
        outputs: Sequence[str] = (),
        wants_maps: bool = True,
    ) -> None:
        if batch.call is not None and batch.call.is_computing:  # interrupted between `start` and `finish`
            batch.wait()
        batch.size, batch.times = size, []
        try:
            preprocessor = self._preprocessors.pop()
        except IndexError:
            preprocessor = Preprocessor(self.bundle.manifest.input, channels=self._channels)
        for image, out in zip(images, batch.tensors[size][IMAGE], strict=False):
            start = time.perf_counter()
            preprocessor.convert(image, out)
            batch.times.append(Times(preprocess_ms=(time.perf_counter() - start) * 1e3))
        self._preprocessors.append(preprocessor)
        batch.call = None
        with self._lock:
            engines = self._engines
            if not engines:
                raise closed()
            if self.parallel_count:
                is_alone = not batch.is_shared
                for one in self._started:
                    is_alone = is_alone and (one is batch or not one.is_computing)
                call = batch.calls.get((size, is_alone))
                if call is None or not call.is_open:
                    engine: Any = engines[size][self.program.steps[0].engine]
                    call = batch.bind(engine, is_alone=is_alone)
                batch.call = call
                self._started.add(batch)
                call.start()

    def finish(self, batch: HostBatch) -> None:
        if batch.call is not None:
            if not self._engines:
                raise closed()
            elapsed_ms, stages_ms = batch.call.wait(), {}
        else:
            start = time.perf_counter()
            stages_ms = self._run_steps(batch.tensors[batch.size], batch.size)
            elapsed_ms = (time.perf_counter() - start) * 1e3
        count = len(batch.times)
        for times in batch.times:
            times.engine_ms = elapsed_ms / count
            if stages_ms:
                times.stages_ms = {name: value / count for name, value in stages_ms.items()}

    def run(self, images: FloatArray) -> tuple[FloatArray, FloatArray]:
        if len(images) not in self.batch_sizes:
            raise InputError(f"batch: expected {' or '.join(map(str, self.batch_sizes))} images, got {len(images)}.")
        batch = HostBatch(self)
        np.copyto(batch.tensors[len(images)][IMAGE], images)
        self._run_steps(batch.tensors[len(images)], len(images))
        maps = batch.maps[: len(images)]
        return maps, np.array([batch.score(index) for index in range(len(images))], np.float32)

    def profile(self) -> dict[str, float]:
        size = self.batch_sizes[0]
        batch = HostBatch(self)
        batch.tensors[size][IMAGE].fill(0.5)
        found = [self._run_steps(batch.tensors[size], size) for _ in range(PROFILE_RUNS + 1)][1:]
        return {name: min(one[name] for one in found) for name in self.stage_names}

    def set_asset(self, image: Image) -> None:
        name, picture = self._maker.name, self._maker.prepare_picture(image, self._channels)
        with self._lock:
            tensors = self._compute_asset(picture)
        self.use_asset(name, tensors)

    def use_asset(self, name: str, tensors: Mapping[str, FloatArray]) -> None:
        """Use other tensors of a swappable asset from the next run on, rounded as the bundle stores them.

        Raises:
            InputError: a tensor is missing, or of another shape.
            EngineError: an engine that holds the asset cannot be compiled anew.
        """
        rounded = self._maker.round_tensors(tensors)
        assets = {**read_assets(self.bundle, self.program), name: rounded}  # an op may read another one beside it
        prepared = [step.prepare(assets) for step in self._steps]
        rebuilt = self._maker.rebuild_engines(self.program.stages, tensors, self.batch_sizes)
        with self._lock:
            engines = self._need_engines()
            for step, one in zip(self._steps, prepared, strict=True):
                step.use(one)
            for size, stages in rebuilt.items():
                for stage, engine in stages.items():
                    old, engines[size][stage] = engines[size][stage], engine
                    old.close()
            self._digests[name] = hash_asset(rounded)

    def compute_asset(self, picture: FloatArray) -> dict[str, FloatArray]:
        """Return the tensors of the swappable asset, made of a preprocessed image, float32 [1, 3, h, w]."""
        with self._lock:
            return self._compute_asset(picture)

    def close(self) -> None:
        with self._lock:
            engines, self._engines = self._engines, {}
            for batch in self._started:
                batch.wait()
            self._started.clear()
            self._shared = []
            for stages in engines.values():
                for engine in stages.values():
                    engine.close()

    def _compute_asset(self, picture: FloatArray) -> dict[str, FloatArray]:
        engines = self._need_engines()
        size = self.batch_sizes[0]
        if not set(self._maker.stages) <= set(engines[size]):
            return self._maker.compute_alone(picture)
        batch = np.zeros((size, *picture.shape[1:]), np.float32)
        batch[0] = picture[0]
        return self._maker.compute(batch, engines[size])

    def _run_steps(self, tensors: Tensors, size: int) -> dict[str, float]:
        """Run every step and return the milliseconds of each, by label; none where they run as one."""
        stages_ms: dict[str, float] = dict.fromkeys(self.stage_names, 0.0)
        with self._lock:
            engines = self._need_engines()[size]
            for step in self._steps:
                start = time.perf_counter()
                step.run(tensors, engines)
                if stages_ms:
                    stages_ms[step.label] += (time.perf_counter() - start) * 1e3
        return stages_ms

    def _allocate(self, size: int) -> Tensors:
        """Return the tensors between the steps of one batch size: those that are never needed together share memory."""
        outputs = (IMAGE, *self.program.outputs.values())
        lives = find_lifetimes((*step.reads, *step.writes) for step in self._steps)
        names = [name for name in lives if name not in outputs]
        shapes = {name: self.tensors[name].with_batch(size) for name in names}
        layout = lay_out_buffers({name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}, lives)
        block = np.empty(layout.size_bytes // 4, np.float32)
        starts = {name: layout.offsets_bytes[name] // 4 for name in names}
        return {n: block[starts[n] : starts[n] + int(np.prod(shapes[n]))].reshape(shapes[n]) for n in names}

    def _need_engines(self) -> Engines:
        if not self._engines:
            raise closed()
        return self._engines

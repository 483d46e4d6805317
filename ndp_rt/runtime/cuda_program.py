"""A program on a GPU: engines and kernels on one stream, captured as one CUDA graph for each batch size.

Everything between the network's input and the scores happens here without the host waiting. All memory is allocated
when the program is opened. `ndp_rt.runtime.cuda` brings images in and results out.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.open import Bundle
from ndp_rt.devices.cuda.driver import CudaDevice, tolerate_errors, translate_errors
from ndp_rt.devices.cuda.graph import Capture, CapturedGraph, capturing_alone
from ndp_rt.devices.cuda.memory import STAGING_BYTES, DeviceMemory, PinnedMemory, copy_and_wait, sum_words
from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import ClosedError, DeviceError, InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.program import IMAGE, MAP
from ndp_rt.runtime.assets import read_assets
from ndp_rt.runtime.cuda_assets import AssetLayout, DeviceAssets, PreparedAssets
from ndp_rt.runtime.cuda_steps import SCORE, CudaSteps, DeviceStep, Wave
from ndp_rt.runtime.host_step import Assets

log = logging.getLogger("ndp_rt")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a run on one image left: its results by name, and the sum of the bits of all tensors."""

    results: Mapping[str, FloatArray]
    bits: int

    def find_difference(self, expected: "Trial") -> float:
        """Return the results' largest difference, of those above 1 in shares of the largest; NaN where one is NaN."""
        pairs = [(values, expected.results[name]) for name, values in self.results.items()]
        return float(np.max([np.abs(one - other).max() / max(1.0, np.abs(other).max()) for one, other in pairs]))


class CudaProgram:
    """Runs a program's steps on one GPU; see the module. One caller at a time; `prepare_assets` may run beside."""

    def __init__(
        self,
        bundle: Bundle,
        plan: str,
        device: CudaDevice,
        engines: Mapping[int, Mapping[str, DeviceEngine]],
        *,
        precision: str,
        engine_hash: str,
        kernels: KernelSet,
        capture: Capture | None,
    ) -> None:
        """Allocate everything, run each batch size once, and capture its graph.

        Args:
            plan: the name of one of its programs for a GPU.
            device: where the engines were loaded.
            engines: by batch size and stage.
            precision: of the engines, for the tolerance of the check.
            engine_hash: names the engines.
            capture: makes the graphs; None: every step is launched each time.

        Raises:
            DeviceError: memory runs out, or the device fails. Everything is freed again.
        """
        self.bundle, self.plan, self.device, self.precision = bundle, plan, device, precision
        _, self.program = bundle.manifest.find_program("cuda", plan)
        self._kernels, self._capture, self._engine_hash = kernels, capture, engine_hash
        self._engines = {size: dict(engines[size]) for size in sorted(engines)}
        self._memory: DeviceMemory | None = None
        self._stagings: list[PinnedMemory] = []  # the program's, and the assets', which are prepared beside it
        self.assets: DeviceAssets | None = None
        self._steps: dict[int, CudaSteps] = {}
        device.activate()
        try:
            with translate_errors("opening the program on the GPU"):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        cupy = self.device.cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)
        for size, engines in self._engines.items():
            arguments = self.bundle.manifest, self.program, size, engines, self._find_prepared, self._kernels
            self._steps[size] = CudaSteps(*arguments)
        widest = max(len(wave) for steps in self._steps.values() for wave in steps.waves)
        self._branches = [cupy.cuda.Stream(non_blocking=True) for _ in range(widest - 1)]
        # Made once: nothing is created or destroyed while a stream captures.
        self._fork = cupy.cuda.Event(disable_timing=True)
        self._joins = [cupy.cuda.Event(disable_timing=True) for _ in self._branches]
        first = self._steps[self.batch_sizes[0]]
        self._stagings.append(PinnedMemory(self.device, STAGING_BYTES))
        if self.program.assets:
            self._stagings.append(PinnedMemory(self.device, STAGING_BYTES))
            places = AssetLayout(self.program, self.bundle.manifest.assets, first.forms)
            self.assets = DeviceAssets(self.device, self._kernels, places, self.stream, self._stagings[1])
            self.assets.use(self.assets.prepare(read_assets(self.bundle, self.program)))
        # Each batch size's tensors lie in one block, which only one of them uses at a time.
        layouts = {size: steps.lay_out() for size, steps in self._steps.items()}
        size_bytes = max(layout.size_bytes for layout in layouts.values())
        self._memory = DeviceMemory(self.device, size_bytes, "the program's tensors")
        for size, layout in layouts.items():
            self._steps[size].place(self._memory, layout.offsets_bytes)
        for steps in self._steps.values():
            self._make_ready(steps)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(self._engines)

    @property
    def engine_hash(self) -> str:
        return "+".join((self._engine_hash, *(self.assets.digests if self.assets is not None else ())))

    @property
    def buffer_bytes(self) -> int:
        """Device memory of all tensors; engines hold theirs besides."""
        return self._memory.size_bytes if self._memory is not None else 0

    @property
    def input_dtype(self) -> str:
        """The element type of the network's input."""
        return self.find_steps(self.batch_sizes[0]).specs[IMAGE].dtype

    @property
    def held_bytes(self) -> int:
        """Device memory that the engines hold themselves."""
        return sum(engine.held_bytes for stages in self._engines.values() for engine in stages.values())

    @property
    def captured_sizes(self) -> tuple[int, ...]:
        """The batch sizes that run as CUDA graphs."""
        return tuple(size for size, steps in self._steps.items() if steps.graph is not None)

    def find_steps(self, size: int) -> CudaSteps:
        """Return the steps of one batch size.

        Raises:
            InputError: no engine was built for it.
            ClosedError: after close().
        """
        if not self._steps:
            raise ClosedError("the program is closed. Open another.")
        if size not in self._steps:
            built = " or ".join(map(str, self._steps))
            raise InputError(f"batch: expected {built} images, which engines were built for, got {size}.")
        return self._steps[size]

    def list_steps(self, size: int) -> list[DeviceStep]:
        """Return the steps of one batch size, one after another."""
        return [step for wave in self.find_steps(size).waves for step in wave]

    def get_tensor(self, size: int, name: str) -> Any:
        """Return a tensor of one batch size, on the device: `image`, or one of `CudaSteps.results`.

        Others share their bytes, and hold what they are called only while the steps run.
        """
        return self.find_steps(size).tensors[name]

    def upload(self, batch: FloatArray) -> None:
        """Copy a float32 batch [n, 3, h, w] into `image` and wait; for checks: frames come through the executor.

        Steps overwrite `image`, which shares its bytes, so a batch serves one run.
        """
        steps = self.find_steps(len(batch))
        image = steps.tensors[IMAGE]
        if batch.shape != image.shape:
            raise InputError(f"batch: expected {list(image.shape)}, got {list(batch.shape)}.")
        held = narrow(batch, steps.specs[IMAGE].dtype)
        copy_and_wait(self.device, image.data.ptr, held, self.stream, self._stagings[0], to_device=True)

    def enqueue(self, size: int) -> None:
        """Put a whole run on `self.stream`, from `image` to the results, and return before it is done.

        Raises:
            DeviceError, EngineError: the device or an engine refuses.
        """
        steps = self.find_steps(size)
        if steps.graph is not None:
            with translate_errors("launching the program's graph"):
                steps.graph.launch(self.stream)
        else:
            self._enqueue_steps(steps)

    def capture_work(self, enqueue: Callable[[], None]) -> CapturedGraph | None:
        """Capture what `enqueue` puts on `self.stream`; None where the program was opened without captures.

        Raises:
            DeviceError: CUDA or an engine refuses.
        """
        if self._capture is None:
            return None
        with capturing_alone():
            return self._capture(self.stream, enqueue)

    def prepare_assets(self, assets: Assets) -> PreparedAssets:
        """Prepare other assets on the device, beside runs.

        Raises:
            InputError: the program's ops read no assets.
        """
        return self._need_assets().prepare(assets)

    def use_assets(self, prepared: PreparedAssets) -> None:
        """Use prepared assets from the next `enqueue` on; the frames before keep the old ones."""
        self._need_assets().use(prepared)

    def compute_tensors(self, image: FloatArray, stages: Sequence[str], names: Sequence[str]) -> dict[str, FloatArray]:
        """Return tensors that some stages write for one image, float32 [1, 3, h, w]; waits for the stream."""
        self._need_assets()
        steps = self.find_steps(self.batch_sizes[0])
        self.upload(np.repeat(image, steps.size, axis=0))
        for stage in stages:
            steps.engines[stage].enqueue(self.stream.ptr)
        return {name: self._download(steps, name)[:1] for name in names}

    def run(self, batch: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run step by step on a host batch and wait: for checks, which need the maps before smoothing.

        Args:
            batch: float32 [n, 3, h, w], 0 to 1; n is one of `batch_sizes`.

        Returns:
            The maps before smoothing [n, 1, h, w] and scores [n]; float32.
        """
        name = self.program.outputs[MAP]
        written = {one for step in self.list_steps(len(batch)) for one in step.writes}
        maker = next((step for step in self.program.steps if name in step.writes), None)
        if name in written or maker is None:
            tensors = self.trace(batch, (name, SCORE))
            return tensors[name], tensors[SCORE]
        tensors = self.trace(batch, (*maker.reads, SCORE))  # the kernel that smooths makes the map too
        maps = find_op(maker.op).define(maker.params, *(tensors[one] for one in maker.reads))[0]
        return maps.astype(np.float32), tensors[SCORE]

    def trace(self, batch: FloatArray, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Run step by step on a host batch and return what the steps wrote, as float32, by name.

        Args:
            batch: as for `run`.
            names: tensors to return; None: all but scratch memory.
        """
        steps = self.find_steps(len(batch))
        self.upload(batch)
        found: dict[str, FloatArray] = {}
        for wave in steps.waves:
            self._enqueue_wave(wave)
            written = [name for step in wave for name in step.writes if name not in steps.scratch_bytes]
            for name in written if names is None else [one for one in written if one in names]:
                found[name] = self._download(steps, name)  # now: later steps may use its memory
        return found

    def close(self, *, keeps_engines: bool = False) -> None:
        """Wait for the device and free everything; twice is allowed, and a device that failed is no obstacle.

        Args:
            keeps_engines: leave the engines open, for a caller who goes on with them.
        """
        if hasattr(self, "stream"):
            with tolerate_errors("closing the program"):
                self.stream.synchronize()
        for steps in self._steps.values():
            steps.graph = None
        for stages in self._engines.values() if not keeps_engines else ():
            for engine in stages.values():
                engine.close()
        memory, self._memory = self._memory, None
        stagings, self._stagings = self._stagings, []
        for one in (memory, self.assets, *stagings):
            if one is not None:
                with tolerate_errors("closing the program"):
                    one.close()
        self._engines, self._steps = {}, {}

    def _find_prepared(self, number: int) -> Mapping[str, Any]:
        assert self.assets is not None
        return self.assets.find(number)

    def _need_assets(self) -> DeviceAssets:
        if not self._steps:
            raise ClosedError("the program is closed. Open another.")
        if self.assets is None:
            raise InputError(
                f"plan: expected one whose steps read the asset, got '{self.plan}', whose engine holds it and cannot "
                f"change while it runs. Give the bundle another one: ndp-rt set-reference {self.bundle.path} IMAGE."
            )
        return self.assets

    def _make_ready(self, steps: CudaSteps) -> None:
        """Run once, which compiles and loads everything; capture the graph, and use it if it does all that steps do.

        Every step counts by the bits of all tensors, not by its share in the results alone, which may be small. Another
        image runs before the graph does, since engines hold memory besides ours.
        """
        shape = steps.specs[IMAGE].fixed_shape
        image = np.linspace(0.0, 1.0, prod(shape), dtype=np.float32).reshape(shape)

        def launch_steps() -> None:
            self._enqueue_steps(steps)

        self._run_once(steps, 1.0 - image, launch_steps)
        try:
            graph = self.capture_work(launch_steps)
            if graph is None:
                return
            expected = self._run_once(steps, image, launch_steps)
            self._run_once(steps, 1.0 - image, launch_steps)
            found = self._run_once(steps, image, lambda: graph.launch(self.stream))
            again = self._run_once(steps, image, launch_steps)
        except DeviceError as error:
            log.warning("batch %d runs without a CUDA graph, a little slower: %s", steps.size, error)
            return
        allowed = 0.0 if again.bits == expected.bits else find_tolerance("engine.map", self.precision).absolute
        difference = found.find_difference(expected)
        if difference <= allowed and (allowed or found.bits == expected.bits):  # NaN is not
            steps.graph = graph
        else:
            log.warning(
                "batch %d runs without a CUDA graph: expected what the same steps give one by one, within %.0e, "
                "got %s. Report this.",
                steps.size,
                allowed,
                f"results that differ by {difference:.2e}" if difference else "other values between the steps",
            )

    def _run_once(self, steps: CudaSteps, image: FloatArray, enqueue: Callable[[], None]) -> Trial:
        """Run on memory that is NaN all over: what an earlier run left there passes for nothing."""
        assert self._memory is not None
        with translate_errors("clearing the program's tensors"):
            memset = self.device.cupy.cuda.runtime.memsetAsync
            memset(self._memory.pointer, 0xFF, self._memory.size_bytes, self.stream.ptr)
        self.upload(image)
        enqueue()
        results = {name: self._download(steps, name) for name in steps.results}
        return Trial(results=results, bits=sum_words(self.device, self._memory, self.stream, self._stagings[0]))

    def _enqueue_steps(self, steps: CudaSteps) -> None:
        for wave in steps.waves:
            self._enqueue_wave(wave)

    def _enqueue_wave(self, wave: Wave) -> None:
        """Put the steps of a wave side by side: the first on the main stream, the others on branches of it."""
        if len(wave) == 1:
            wave[0].enqueue(self.stream)
            return
        with translate_errors("forking the program's stream"):
            self._fork.record(self.stream)
            branches = self._branches[: len(wave) - 1]
            for branch in branches:
                branch.wait_event(self._fork)
            for step, stream in zip(wave, (self.stream, *branches), strict=True):
                step.enqueue(stream)
            for branch, join in zip(branches, self._joins, strict=False):
                join.record(branch)
                self.stream.wait_event(join)

    def _download(self, steps: CudaSteps, name: str) -> FloatArray:
        """Wait for the stream and return a tensor as float32 on the host."""
        tensor, dtype = steps.tensors[name], steps.specs[name].dtype
        values = np.empty(tensor.shape, tensor.dtype)
        copy_and_wait(self.device, tensor.data.ptr, values, self.stream, self._stagings[0], to_device=False)
        return widen(values, dtype)

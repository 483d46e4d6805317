"""NDP-Net on a GPU: engines and kernels on one stream, captured as one CUDA graph for each batch size.

Everything between the network's input and the scores happens here without the host waiting: encoder, RBFRM on levels 3
to 5 for K = 2 and 4 (side by side), decoder and MSDSM, then eq. 11 with smooth in one kernel, and score. All memory is
allocated when the plan is opened. `ndp_rt.runtime.gpu_runner` brings images in and results out.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.devices.cuda.driver import CudaDevice, tolerate_errors, translate_errors
from ndp_rt.devices.cuda.graph import Capture
from ndp_rt.devices.cuda.memory import DeviceMemory, PinnedMemory
from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import ClosedError, DeviceError, InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.fuse_maps.definition import fuse_maps
from ndp_rt.kernels.load import KernelSet
from ndp_rt.runtime.gpu_reference import DeviceReference
from ndp_rt.runtime.gpu_sized import SizedPlan, fix_shape
from ndp_rt.runtime.gpu_steps import MAPS, Step, lay_out_tensors, list_repaired
from ndp_rt.runtime.plan import Features, hash_features, missing_size

FloatArray = NDArray[np.float32]

log = logging.getLogger("ndp_rt")


class GpuPlan:
    """Runs the network's steps on one GPU; see the module. One caller at a time; `make_reference` may run beside."""

    def __init__(
        self,
        device: CudaDevice,
        engines: Mapping[int, Mapping[str, DeviceEngine]],
        features: Features | None,
        *,
        precision: str,
        engine_hash: str,
        kernels: KernelSet,
        capture: Capture | None,
    ) -> None:
        """Allocate everything, run each batch size once, and capture its graph.

        Args:
            device: where the engines were loaded.
            engines: by batch size, then by stage in the order they run.
            features: the reference's f3, f4, f5; None where the engines hold the reference (plan "fused").
            precision: of the engines, for the tolerance of the check.
            engine_hash: names the engines.
            kernels: of ours.
            capture: makes the graphs; None: every step is launched each time.

        Raises:
            DeviceError: memory runs out, or the device fails. Everything is freed again.
        """
        self.device = device
        self.precision = precision
        self._kernels = kernels
        self._capture = capture
        self._engine_hash = engine_hash
        self._engines = {size: dict(engines[size]) for size in sorted(engines)}
        self._memory: DeviceMemory | None = None
        self.reference: DeviceReference | None = None
        self._sized: dict[int, SizedPlan] = {}
        device.activate()
        try:
            with translate_errors("opening the GPU plan"):
                self.stream = device.cupy.cuda.Stream(non_blocking=True)
                branch_count = len(list_repaired()) - 1 if features is not None else 0
                self._branches = [device.cupy.cuda.Stream(non_blocking=True) for _ in range(branch_count)]
                # Made once: nothing is created or destroyed while a stream captures.
                self._fork = device.cupy.cuda.Event(disable_timing=True)
                self._joins = [device.cupy.cuda.Event(disable_timing=True) for _ in range(branch_count)]
                if features is not None:
                    spec = self._engines[self.batch_sizes[0]]["encoder"].outputs
                    self.reference = DeviceReference(device, kernels, spec, self.stream)
                    self.reference.use(self.reference.prepare(features))
                self._allocate()
                for size in self.batch_sizes:
                    self._make_ready(self._sized[size])
        except BaseException:
            self.close()
            raise

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(self._engines)

    @property
    def engine_hash(self) -> str:
        return self._engine_hash if self.reference is None else f"{self._engine_hash}+{self.reference.digest}"

    @property
    def buffer_bytes(self) -> int:
        """Device memory of all tensors; engines hold theirs besides."""
        return self._memory.size_bytes if self._memory is not None else 0

    @property
    def input_dtype(self) -> str:
        """The element type of the network's input."""
        return self._open(self.batch_sizes[0]).specs["image"].dtype

    @property
    def held_bytes(self) -> int:
        """Device memory that the engines hold themselves."""
        return sum(engine.held_bytes for stages in self._engines.values() for engine in stages.values())

    @property
    def captured_sizes(self) -> tuple[int, ...]:
        """The batch sizes that run as CUDA graphs."""
        return tuple(size for size, sized in self._sized.items() if sized.graph is not None)

    def list_steps(self, size: int) -> list[Step]:
        """Return the steps of one batch size, one after another."""
        return [step for wave in self._open(size).waves for step in wave]

    def get_tensor(self, size: int, name: str) -> Any:
        """Return a tensor of one batch size, on the device: `image`, `reconstruction`, `smoothed` or `score`.

        Others share their bytes, and hold what they are called only while the steps run.
        """
        return self._open(size).tensors[name]

    def upload(self, batch: FloatArray) -> None:
        """Copy a float32 batch [n, 3, h, w] into `image` and wait; for checks: frames come through the runner.

        Steps overwrite `image`, which shares its bytes, so a batch serves one run.
        """
        sized = self._open(len(batch))
        image = sized.tensors["image"]
        if batch.shape != image.shape:
            raise InputError(f"the batch is {list(batch.shape)}; {list(image.shape)} is taken.")
        self._copy(image, narrow(batch, sized.specs["image"].dtype), to_device=True)

    def enqueue(self, size: int) -> None:
        """Put a whole run on `self.stream`, from `image` to the results, and return before it is done.

        Raises:
            DeviceError, EngineError: the device or an engine refuses.
        """
        sized = self._open(size)
        if sized.graph is not None:
            with translate_errors("launching the plan's graph"):
                sized.graph.launch(self.stream)
        else:
            self._enqueue_steps(sized)

    def make_reference(self, features: Features) -> Any:
        """Prepare a new reference on the device, beside runs.

        Raises:
            InputError: features of other names or shapes, or the engines hold the reference themselves.
        """
        return self._need_reference().prepare(features), hash_features(features)

    def use_reference(self, prepared: Any) -> None:
        """Use what `make_reference` returned from the next `enqueue` on; the frames before keep the old one."""
        self._need_reference().use(prepared[0])

    def compute_features(self, image: FloatArray) -> dict[str, FloatArray]:
        """Return f3, f4, f5 of image, float32 [1, 3, h, w]; waits for the stream."""
        self._need_reference()
        sized = self._open(self.batch_sizes[0])
        self.upload(np.repeat(image, sized.size, axis=0))
        sized.engines["encoder"].enqueue(self.stream.ptr)
        return {name: self._download(sized, name)[:1] for name in ("f3", "f4", "f5")}

    def run(self, batch: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Run step by step on a host batch and wait: for checks, which need the maps before smoothing too.

        Args:
            batch: float32 [n, 3, h, w], 0 to 1; n is one of `batch_sizes`.

        Returns:
            The maps before smoothing [n, 1, h, w], smoothed [n, 1, h, w], and scores [n]; float32.
        """
        tensors = self.trace(batch, (*MAPS, "smoothed", "score"))
        maps = fuse_maps([tensors[name] for name in MAPS]).astype(np.float32)
        return maps, tensors["smoothed"], tensors["score"]

    def trace(self, batch: FloatArray, names: Sequence[str] | None = None) -> dict[str, FloatArray]:
        """Run step by step on a host batch and return what the steps wrote, as float32, by name.

        Args:
            batch: as for `run`.
            names: tensors to return; None: all but scratch memory.
        """
        sized = self._open(len(batch))
        self.upload(batch)
        found: dict[str, FloatArray] = {}
        for wave in sized.waves:
            self._enqueue_wave(wave)
            written = [name for step in wave for name in step.writes if name not in sized.scratch_bytes]
            for name in written if names is None else [one for one in written if one in names]:
                found[name] = self._download(sized, name)  # now: later steps may use its memory
        return found

    def close(self, *, keeps_engines: bool = False) -> None:
        """Wait for the device and free everything; twice is allowed, and a device that failed is no obstacle.

        Args:
            keeps_engines: leave the engines open, for a caller who goes on with them.
        """
        if hasattr(self, "stream"):
            with tolerate_errors("closing the plan"):
                self.stream.synchronize()
        for sized in self._sized.values():
            sized.graph = None
        for stages in self._engines.values() if not keeps_engines else ():
            for engine in stages.values():
                engine.close()
        memory, self._memory = self._memory, None
        for one in (memory, self.reference):
            if one is not None:
                with tolerate_errors("closing the plan"):
                    one.close()
        self._engines, self._sized = {}, {}

    def _open(self, size: int) -> SizedPlan:
        sized = self._sized.get(size)
        if sized is None:
            raise missing_size(size, tuple(self._sized))
        return sized

    def _need_reference(self) -> DeviceReference:
        if not self._sized:
            raise ClosedError("the plan is closed. Open another.")
        if self.reference is None:
            raise InputError(
                "plan 'fused' holds its reference in the engine, so it cannot be changed while it runs. Open with "
                "plan='staged', or give the bundle another one: ndp-rt set-reference NAME.ndp IMAGE."
            )
        return self.reference

    def _allocate(self) -> None:
        """Lay out each batch size's tensors in one block, which only one of them uses at a time."""
        layouts = {}
        for size, engines in self._engines.items():
            patches = None if self.reference is None else self.reference.layout
            sized = SizedPlan(size, engines, patches, self.reference, self._kernels)
            self._sized[size] = sized
            layouts[size] = lay_out_tensors(sized.specs, sized.scratch_bytes, sized.waves)
        self._memory = DeviceMemory(
            self.device, max(layout.size_bytes for layout in layouts.values()), "the plan's tensors"
        )
        for size, layout in layouts.items():
            self._sized[size].place(self._memory, layout.offsets_bytes)

    def _make_ready(self, sized: SizedPlan) -> None:
        """Run once, which compiles and loads everything, then capture and check the graph."""
        shape = fix_shape(sized.specs["image"])
        image = np.linspace(0.0, 1.0, prod(shape), dtype=np.float32).reshape(shape)
        expected = self._run_once(sized, image, lambda: self._enqueue_steps(sized))
        if self._capture is not None:
            try:
                graph = self._capture(self.stream, lambda: self._enqueue_steps(sized))
                repeated = self._run_once(sized, image, lambda: graph.launch(self.stream))
            except DeviceError as error:
                log.warning("batch %d runs without a CUDA graph, a little slower: %s", sized.size, error)
            else:
                difference = float(np.abs(repeated - expected).max())
                allowed = find_tolerance("engine.map", self.precision).absolute
                if difference <= allowed:  # NaN is not
                    sized.graph = graph
                else:
                    log.warning(
                        "batch %d runs without a CUDA graph: its maps differ by %.2e (%.0e is allowed) from those of "
                        "the same steps launched one by one. Report this.",
                        sized.size,
                        difference,
                        allowed,
                    )

    def _run_once(self, sized: SizedPlan, image: FloatArray, enqueue: Callable[[], None]) -> FloatArray:
        smoothed = sized.tensors["smoothed"]
        with translate_errors("clearing a result"):  # to NaN, so that what an earlier run left there passes for nothing
            self.device.cupy.cuda.runtime.memsetAsync(smoothed.data.ptr, 0xFF, smoothed.nbytes, self.stream.ptr)
        self.upload(image)
        enqueue()
        return self._download(sized, "smoothed")

    def _enqueue_steps(self, sized: SizedPlan) -> None:
        for wave in sized.waves:
            self._enqueue_wave(wave)

    def _enqueue_wave(self, wave: Sequence[Step]) -> None:
        """Put the steps of a wave side by side: the first on the main stream, the others on branches of it."""
        if len(wave) == 1:
            wave[0].enqueue(self.stream)
            return
        with translate_errors("forking the plan's stream"):
            self._fork.record(self.stream)
            branches = self._branches[: len(wave) - 1]
            for branch in branches:
                branch.wait_event(self._fork)
            for step, stream in zip(wave, (self.stream, *branches), strict=True):
                step.enqueue(stream)
            for branch, join in zip(branches, self._joins, strict=False):
                join.record(branch)
                self.stream.wait_event(join)

    def _download(self, sized: SizedPlan, name: str) -> FloatArray:
        """Wait for the stream and return a tensor as float32 on the host."""
        tensor, dtype = sized.tensors[name], sized.specs[name].dtype
        values = np.empty(tensor.shape, tensor.dtype)
        self._copy(tensor, values, to_device=False)
        return widen(values, dtype)

    def _copy(self, tensor: Any, values: NDArray[Any], *, to_device: bool) -> None:
        runtime = self.device.cupy.cuda.runtime
        pinned = PinnedMemory(self.device, values.nbytes)
        try:
            held = pinned.view(values.shape, values.dtype)
            with translate_errors("copying a tensor"):
                if to_device:
                    held[...] = values
                    args = (tensor.data.ptr, pinned.pointer, values.nbytes, runtime.memcpyHostToDevice)
                else:
                    args = (pinned.pointer, tensor.data.ptr, values.nbytes, runtime.memcpyDeviceToHost)
                runtime.memcpyAsync(*args, self.stream.ptr)
                self.stream.synchronize()
            if not to_device:
                values[...] = held
        finally:
            pinned.close()

"""A program's steps on a GPU for one batch size: engines and kernels over named tensors, side by side where they can.

The rules of the decision are its last steps. Where an op's work can be done by the smoothing kernel (`SmoothingForm`),
the map between the two never goes to memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ndp_rt.bundle.programs import list_reads
from ndp_rt.devices.cuda.graph import CapturedGraph
from ndp_rt.devices.cuda.memory import DeviceMemory
from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.errors import EngineError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.op import CudaForm, SmoothForm, SmoothingForm, is_asset_part
from ndp_rt.kernels.registry import find_op
from ndp_rt.kernels.score.launch import score
from ndp_rt.kernels.smooth.launch import Smoothing, count_smooth_tiles
from ndp_rt.kernels.top_k_mean.launch import top_k_mean
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE, Program, Step
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.memory_layout import BufferLayout, Lifetime, find_lifetimes, lay_out_buffers

SMOOTHED, TILE_MAXIMA, SCORE = "smoothed", "tile_maxima", "score"  # what the decision's steps write

FindPrepared = Callable[[int], Mapping[str, Any]]  # number of a step -> its prepared device memory


@dataclass(frozen=True, kw_only=True)
class DeviceStep:
    """One engine or kernel: what it reads and writes, by name, and how it is put on a stream."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    enqueue: Callable[[Any], None]


Wave = Sequence[DeviceStep]


class CudaSteps:
    """The steps of one batch size over their tensors, and the graph that repeats them."""

    def __init__(
        self,
        manifest: BundleManifest,
        program: Program,
        size: int,
        engines: Mapping[str, DeviceEngine],
        find_prepared: FindPrepared,
        kernels: KernelSet,
    ) -> None:
        """Describe tensors and steps; `place` gives the tensors their memory.

        Args:
            manifest: for the assets and the rules of the decision.
            program: whose steps they are.
            size: the batch.
            engines: by stage.
            find_prepared: where a step's prepared assets lie; not called before a step is put on a stream.

        Raises:
            EngineError: two engines disagree about a tensor, or lack one of the program's.
            MissingFormError: an op has no form for a GPU.
        """
        self.size = size
        self.engines = dict(engines)
        self.program = program
        self.graph: CapturedGraph | None = None
        self.tensors: dict[str, Any] = {}
        self.specs: dict[str, TensorSpec] = {}
        self.scratch_bytes: dict[str, int] = {}
        self.forms: dict[int, CudaForm] = {}  # by number of the step
        self._manifest, self._kernels, self._find_prepared = manifest, kernels, find_prepared
        map_name = program.outputs[MAP]
        self.smoothed = map_name if manifest.decision.smooth == "none" else SMOOTHED
        self._score_rows: Any = None  # what the score is made of, as one row an image: the smoothed map, or a score
        steps: list[DeviceStep] = []
        for number, step in enumerate(program.steps):
            steps.append(self._describe_engine(step) if step.engine else self._describe_op(number, step))
        smoothing = self._find_smoothing(map_name)
        if smoothing is not None:  # the kernel that smooths makes the map, too
            steps = [step for step in steps if map_name not in step.writes]
        self.waves: list[Wave] = [*_sort_into_waves(steps), *self._describe_decision(map_name, smoothing)]
        missing = [name for name in (IMAGE, *program.outputs.values()) if name not in self.specs]
        if missing:
            raise EngineError(f"engines: expected the tensors {', '.join(missing)}, got none. Build with --rebuild.")

    @property
    def results(self) -> tuple[str, ...]:
        """The tensors that leave the program: needed until they were copied away, after the last step."""
        others = tuple(name for output, name in self.program.outputs.items() if output != MAP)
        return (self.smoothed, SCORE, *others)

    def lay_out(self) -> BufferLayout:
        """Place all tensors, and the scratch memory of kernels, that the steps touch."""
        lifetimes = self.find_lifetimes()
        sizes = {
            name: self.scratch_bytes[name] if name in self.scratch_bytes else self.specs[name].size_bytes
            for name in lifetimes
        }
        return lay_out_buffers(sizes, lifetimes)

    def find_lifetimes(self) -> dict[str, Lifetime]:
        """Return, by the numbers of the waves, how long each tensor is needed; `image` from before the first wave."""
        touched = [[name for step in wave for name in (*step.reads, *step.writes)] for wave in self.waves]
        lifetimes = find_lifetimes([[IMAGE, *touched[0]], *touched[1:]])
        for name in self.results:
            lifetimes[name] = Lifetime(first=lifetimes[name].first, last=len(self.waves))
        return lifetimes

    def list_reads(self, step: Step) -> list[TensorSpec]:
        """Return what an op's step reads; a part of an asset is held in the type of the tensor that it is used with."""
        dtype = next(self.specs[name].dtype for name in step.reads if not is_asset_part(name))
        return [replace(spec, dtype=dtype) for spec in list_reads(self._manifest, step, self.specs)]

    def place(self, memory: DeviceMemory, offsets_bytes: Mapping[str, int]) -> None:
        """Give every tensor its memory and tell the engines."""
        for name, offset in offsets_bytes.items():
            if name in self.scratch_bytes:
                self.tensors[name] = memory.view((self.scratch_bytes[name],), "uint8", offset)
            else:
                spec = self.specs[name]
                self.tensors[name] = memory.view(spec.fixed_shape, spec.dtype, offset)
        read = OWN_SCORE if self._manifest.decision.score == "output" else self.smoothed
        shape = self.specs[read].fixed_shape
        self._score_rows = memory.view((shape[0], prod(shape[1:])), "float32", offsets_bytes[read])
        for engine in self.engines.values():
            engine.bind({name: self.tensors[name].data.ptr for name in (*engine.inputs, *engine.outputs)})

    def _describe_engine(self, step: Step) -> DeviceStep:
        engine = self.engines[step.engine]
        for spec in (*engine.inputs.values(), *engine.outputs.values()):
            known = self.specs.setdefault(spec.name, spec)
            if known != spec:
                raise EngineError(
                    f"engine {step.engine}: expected {spec.name} as {known.dtype} {list(known.shape)}, which another "
                    f"engine has, got {spec.dtype} {list(spec.shape)}. Build again with --rebuild."
                )
        return DeviceStep(
            name=step.engine,
            reads=tuple(engine.inputs),
            writes=tuple(engine.outputs),
            enqueue=lambda stream: engine.enqueue(stream.ptr),
        )

    def _describe_op(self, number: int, step: Step) -> DeviceStep:
        names = tuple(name for name in step.reads if not is_asset_part(name))
        reads = self.list_reads(step)
        op = find_op(step.op)
        form = self.forms[number] = op.make_cuda(step.params, reads, reads[0].dtype)
        for name, spec in zip(step.writes, op.infer(step.params, reads), strict=True):
            known = self.specs.setdefault(name, replace(spec, name=name))
            if known.shape != spec.shape:
                raise EngineError(f"{step}: expected {name} {list(known.shape)}, got {list(spec.shape)}.")
        scratch = (f"scratch of {step.writes[0]}",) if form.scratch_bytes else ()
        for name in scratch:
            self.scratch_bytes[name] = form.scratch_bytes

        def enqueue(stream: Any) -> None:
            tensors = self.tensors
            form.enqueue(
                self._kernels,
                [tensors[name] for name in names],
                self._find_prepared(number) if form.prepared else {},
                [tensors[name] for name in step.writes],
                tensors[scratch[0]] if scratch else None,
                stream=stream,
            )

        return DeviceStep(
            name=f"{step.op} {step.writes[0]}", reads=names, writes=(*step.writes, *scratch), enqueue=enqueue
        )

    def _find_smoothing(self, map_name: str) -> tuple[tuple[str, ...], SmoothForm] | None:
        """Return what reads in place of the map, and the form that makes it and smooths it; None where none does."""
        rules = self._manifest.decision
        is_read = any(map_name in step.reads for step in self.program.steps)
        for number, step in enumerate(self.program.steps) if rules.smooth == "mean_median" and not is_read else ():
            form = self.forms.get(number)
            if step.writes == (map_name,) and isinstance(form, SmoothingForm):
                return step.reads, form.with_smoothing(rules.smooth_size_px)
        return None

    def _describe_decision(self, map_name: str, smoothing: tuple[tuple[str, ...], SmoothForm] | None) -> list[Wave]:
        """Return the steps that smooth and score the map, by the bundle's rules."""
        rules, shape = self._manifest.decision, self.specs[map_name].shape
        self.specs[SCORE] = TensorSpec(name=SCORE, shape=(self.size,))
        waves: list[Wave] = []
        if self.smoothed == SMOOTHED:
            reads, form = smoothing or ((map_name,), Smoothing(size_px=rules.smooth_size_px))
            self.specs[SMOOTHED] = TensorSpec(name=SMOOTHED, shape=shape)
            tile_count = count_smooth_tiles(shape[2] or 0, shape[3] or 0)
            self.specs[TILE_MAXIMA] = TensorSpec(name=TILE_MAXIMA, shape=(self.size, tile_count))

            def smooth(stream: Any) -> None:
                tensors = self.tensors
                sources = [tensors[name] for name in reads]
                form.enqueue(self._kernels, sources, tensors[SMOOTHED], tensors[TILE_MAXIMA], stream=stream)

            waves.append([DeviceStep(name="smooth", reads=reads, writes=(SMOOTHED, TILE_MAXIMA), enqueue=smooth)])

        scored = TILE_MAXIMA if self.smoothed == SMOOTHED and rules.score == "max" else self.smoothed
        scored = OWN_SCORE if rules.score == "output" else scored

        def find_score(stream: Any) -> None:
            scores = self.tensors[SCORE]
            if rules.score == "top_k_mean":
                assert self._score_rows is not None
                k = min(rules.k, self._score_rows.shape[1])
                top_k_mean(self._kernels, self._score_rows, k, scores, stream=stream)
            else:
                values = self.tensors[TILE_MAXIMA] if scored == TILE_MAXIMA else self._score_rows
                score(self._kernels, values, scores, stream=stream)

        waves.append([DeviceStep(name="score", reads=(scored,), writes=(SCORE,), enqueue=find_score)])
        return waves


def _sort_into_waves(steps: Sequence[DeviceStep]) -> list[Wave]:
    """Return steps in waves, in order: those of one wave read nothing that the same wave writes.

    A step is in the first wave in which all that it reads is there; one that needs what its neighbour needs joins it.
    """
    levels: dict[str, int] = {}
    waves: list[list[DeviceStep]] = []
    for step in steps:
        level = max((levels[name] + 1 for name in step.reads if name in levels), default=0)
        waves += [[] for _ in range(level + 1 - len(waves))]
        waves[level].append(step)
        levels |= dict.fromkeys(step.writes, level)
    return list(waves)

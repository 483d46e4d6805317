"""A plan on a GPU for one batch size: its steps, its tensors, and where they lie."""

from collections.abc import Mapping, Sequence
from typing import Any

from ndp_rt.devices.cuda.graph import CapturedGraph
from ndp_rt.devices.cuda.memory import DeviceMemory
from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.score import launch as score_launch
from ndp_rt.kernels.smooth.launch import smooth_levels
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.gpu_reference import DeviceReference, PatchLayout
from ndp_rt.runtime.gpu_steps import MAPS, Step, Wave, collect_tensors, list_repaired, name_repaired


class SizedPlan:
    """The steps of one batch size over their tensors, and the graph that repeats them."""

    def __init__(
        self,
        size: int,
        engines: Mapping[str, DeviceEngine],
        layout: PatchLayout | None,
        reference: DeviceReference | None,
        kernels: KernelSet,
    ) -> None:
        """Describe tensors and steps; `place` gives the tensors their memory.

        Args:
            size: the batch.
            engines: by stage in the order they run.
            layout: of the reference's patches; None where the engines hold the reference.
            reference: the patches; may be None as long as nothing runs.
            kernels: of ours.
        """
        self.size = size
        self.engines = dict(engines)
        self.specs: dict[str, TensorSpec] = collect_tensors(engines, size)
        self.reference = reference
        self.scratch_bytes: dict[str, int] = {}
        if layout is not None:
            for level, k in list_repaired():
                shape = fix_shape(self.specs[f"f{level}"])
                self.scratch_bytes[f"s{level}k{k}"] = layout.count_scratch_bytes(level, k, shape)
        self.tensors: dict[str, Any] = {}
        self.graph: CapturedGraph | None = None
        self.waves: Sequence[Wave] = self._make_waves(kernels)

    def _make_waves(self, kernels: KernelSet) -> list[Wave]:
        """Return the steps in order; those of one wave depend on none of the same wave."""
        waves: list[Wave] = []
        for name, engine in self.engines.items():
            waves.append([self._engine_step(name, engine)])
            if name == "encoder":
                waves.append([self._rbfrm_step(level, k) for level, k in list_repaired()])
        tensors = self.tensors

        def smooth(stream: Any) -> None:
            am1, am2, am3 = (tensors[name] for name in MAPS)
            smooth_levels(kernels, am1, am2, am3, tensors["smoothed"], tensors["tile_maxima"], stream=stream)

        def score(stream: Any) -> None:
            score_launch.score(kernels, tensors["tile_maxima"], tensors["score"], stream=stream)

        waves.append([Step(name="smooth", reads=MAPS, writes=("smoothed", "tile_maxima"), enqueue=smooth)])
        waves.append([Step(name="score", reads=("tile_maxima",), writes=("score",), enqueue=score)])
        return waves

    def place(self, memory: DeviceMemory, offsets_bytes: Mapping[str, int]) -> None:
        """Give every tensor its memory and tell the engines."""
        for name, offset in offsets_bytes.items():
            if name in self.scratch_bytes:
                self.tensors[name] = memory.view((self.scratch_bytes[name],), "uint8", offset)
            else:
                spec = self.specs[name]
                self.tensors[name] = memory.view(fix_shape(spec), spec.dtype, offset)
        for engine in self.engines.values():
            engine.bind({name: self.tensors[name].data.ptr for name in (*engine.inputs, *engine.outputs)})

    def _engine_step(self, name: str, engine: DeviceEngine) -> Step:
        return Step(
            name=name,
            reads=tuple(engine.inputs),
            writes=tuple(engine.outputs),
            enqueue=lambda stream: engine.enqueue(stream.ptr),
        )

    def _rbfrm_step(self, level: int, k: int) -> Step:
        source, target, scratch = f"f{level}", name_repaired(level, k), f"s{level}k{k}"

        def enqueue(stream: Any) -> None:
            tensors, reference = self.tensors, self.reference
            assert reference is not None
            reference.enqueue(level, k, tensors[source], tensors[target], tensors[scratch], stream)

        return Step(name=f"rbfrm {target}", reads=(source,), writes=(target, scratch), enqueue=enqueue)


def fix_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return a shape whose batch axis is fixed."""
    assert None not in spec.shape
    return tuple(size for size in spec.shape if size is not None)

"""How much device memory a plan will take, worked out from the bundle before anything is loaded; needs no GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.errors import InputError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.program.manifest import GPU_PLAN_STAGES, BundleManifest
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.gpu_reference import PatchLayout
from ndp_rt.runtime.gpu_sized import SizedPlan
from ndp_rt.runtime.gpu_steps import MAPS, lay_out_tensors

# The element type at the borders of the stages, by precision (`ndp_rt.graphs.typed` writes the graphs so).
BORDERS = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "float16"}


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on the device for one plan, precision and batch size; engines' weights and scratch come besides."""

    tensor_bytes: int
    unshared_bytes: int  # what the tensors would take if none shared bytes
    reference_bytes: int


@dataclass(frozen=True, kw_only=True)
class StageShapes:
    """What an engine would read and write: as much of a DeviceEngine as a layout needs."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


def estimate_memory(manifest: BundleManifest, plan: str, precision: str, size: int) -> MemoryEstimate:
    """Work out the memory of a plan's tensors and reference.

    Args:
        manifest: the bundle's.
        plan: one of `ndp_rt.program.manifest.GPU_PLAN_STAGES`.
        precision: one of BORDERS.
        size: the batch.

    Raises:
        InputError: another plan or precision.
    """
    if plan not in GPU_PLAN_STAGES or precision not in BORDERS:
        raise InputError(
            f"plan is '{plan}', precision '{precision}'; one of {', '.join(GPU_PLAN_STAGES)} and one of "
            f"{', '.join(BORDERS)} is taken."
        )
    stages = {name: describe_stage(manifest, name, BORDERS[precision], size) for name in GPU_PLAN_STAGES[plan]}
    layout = None if plan == "fused" else PatchLayout.of(stages["encoder"].outputs)
    sized = SizedPlan(size, cast(Mapping[str, DeviceEngine], stages), layout, None, KernelSet())
    buffers = lay_out_tensors(sized.specs, sized.scratch_bytes, sized.waves)
    return MemoryEstimate(
        tensor_bytes=buffers.size_bytes,
        unshared_bytes=buffers.unshared_bytes,
        reference_bytes=0 if layout is None else layout.size_bytes,
    )


def describe_stage(manifest: BundleManifest, name: str, dtype: str, size: int) -> StageShapes:
    """Return the tensors of a stage as a GPU's engines have them: cut before the maps are fused, borders typed."""
    if name == "tail":
        parts = [describe_stage(manifest, part, dtype, size) for part in GPU_PLAN_STAGES["unmerged"][1:]]
        made = {tensor for part in parts for tensor in part.outputs}
        inputs = {tensor: spec for part in parts for tensor, spec in part.inputs.items() if tensor not in made}
        return StageShapes(inputs=inputs, outputs={**parts[0].outputs, **parts[-1].outputs})
    stage = manifest.stages[name]

    def fix(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {tensor: replace(spec, shape=spec.with_batch(size), dtype=dtype) for tensor, spec in specs.items()}

    outputs = fix(stage.outputs)
    if "map" in outputs:
        n, c, h, w = (side or 0 for side in outputs.pop("map").shape)
        for level, map_name in enumerate(MAPS):
            outputs[map_name] = TensorSpec(name=map_name, shape=(n, c, h >> level, w >> level))
    return StageShapes(inputs=fix(stage.inputs), outputs=outputs)

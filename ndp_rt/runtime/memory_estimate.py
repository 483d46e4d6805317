"""Estimates a program's device memory from the bundle, before anything is loaded; needs no GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from ndp_rt.engines.engine import DeviceEngine
from ndp_rt.errors import check_choice
from ndp_rt.graphs.half_types import BORDER_DTYPES
from ndp_rt.kernels.load import KernelSet
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.cuda_assets import AssetLayout
from ndp_rt.runtime.cuda_steps import CudaSteps


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on the device for one program, precision and batch size; engines' weights and scratch come besides."""

    tensor_bytes: int
    unshared_bytes: int  # what the tensors would take if none shared bytes
    asset_bytes: int


@dataclass(frozen=True, kw_only=True)
class StageShapes:
    """The tensors that an engine would read and write: as much of a DeviceEngine as a layout needs."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


def estimate_memory(manifest: BundleManifest, plan: str | None, precision: str, size: int) -> MemoryEstimate:
    """Work out the memory of a program's tensors and assets.

    Args:
        manifest: the bundle's.
        plan: the name of one of its programs for a GPU; None: the first.
        precision: one of BORDER_DTYPES.
        size: the batch.

    Raises:
        InputError: another program or precision.
    """
    check_choice("precision", precision, BORDER_DTYPES)
    _, program = manifest.find_program("cuda", plan)
    stages = {name: describe_stage(manifest, name, BORDER_DTYPES[precision], size) for name in program.stages}
    engines = cast(Mapping[str, DeviceEngine], stages)
    steps = CudaSteps(manifest, program, size, engines, lambda number: {}, KernelSet())
    layout = steps.lay_out()
    return MemoryEstimate(
        tensor_bytes=layout.size_bytes,
        unshared_bytes=layout.unshared_bytes,
        asset_bytes=AssetLayout(program, manifest.assets, steps.forms).size_bytes,
    )


def describe_stage(manifest: BundleManifest, name: str, dtype: str, size: int) -> StageShapes:
    """Return the tensors of a stage as a GPU's engines have them: in one type, but for maps, which are float32."""
    stage = manifest.stages[name]

    def fix(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        return {
            tensor: replace(spec, shape=spec.with_batch(size), dtype="float32" if spec.shape[1] == 1 else dtype)
            for tensor, spec in specs.items()
        }

    return StageShapes(inputs=fix(stage.inputs), outputs=fix(stage.outputs))

"""A bundle's programs with their tensors, ops included."""

from collections.abc import Mapping, Sequence

from ndp_rt.kernels.registry import find_op
from ndp_rt.program.check import check_programs, infer_tensors
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import Step
from ndp_rt.program.tensors import TensorSpec


def infer_op(step: Step, reads: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """Return what an op's step writes, under the op's own names.

    Raises:
        InputError: the op is unknown, or does not take what it reads.
    """
    return find_op(step.op).infer(step.params, reads)


def check_manifest(manifest: BundleManifest) -> None:
    """Check every program of a bundle.

    Raises:
        BundleError: as `ndp_rt.program.check.check_programs`.
    """
    check_programs(manifest, infer_op)


def list_tensors(manifest: BundleManifest, steps: Sequence[Step]) -> dict[str, TensorSpec]:
    """Return every tensor of the steps of a checked bundle, `image` first."""
    return infer_tensors(manifest, steps, infer_op, "the program")


def list_reads(manifest: BundleManifest, step: Step, tensors: Mapping[str, TensorSpec]) -> list[TensorSpec]:
    """Return what an op's step reads, parts of assets included, under the names that it reads them by."""
    found = []
    for name in step.reads:
        asset, dot, part = name.partition(".")
        spec = manifest.assets[asset].tensors[part] if dot else tensors[name]
        found.append(TensorSpec(name=name, shape=spec.shape, dtype=spec.dtype))
    return found

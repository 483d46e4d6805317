"""One step of a program on the host, and steps one after another for callers that need no executor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.programs import list_reads, list_tensors
from ndp_rt.engines.engine import Engine
from ndp_rt.kernels.op import is_asset_part
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import IMAGE, Step
from ndp_rt.program.tensors import TensorSpec

Tensors = dict[str, FloatArray]
Assets = Mapping[str, Mapping[str, FloatArray]]  # asset -> tensor -> values


class HostStep:
    """A stage by its engine, or an op with what it prepared from assets."""

    def __init__(self, manifest: BundleManifest, step: Step, tensors: Mapping[str, TensorSpec]) -> None:
        """Make the op's form; the engine comes with each run."""
        self.label = step.engine or step.op
        self._stage = step.engine
        self._parts = tuple(name.partition(".") for name in step.reads if is_asset_part(name))
        self._prepared: Any = None
        if step.op:
            self._form = find_op(step.op).make_host(step.params, list_reads(manifest, step, tensors))
            self.reads = tuple(name for name in step.reads if not is_asset_part(name))
            self.writes = step.writes
        else:
            stage = manifest.stages[step.engine]
            self.reads, self.writes = tuple(stage.inputs), tuple(stage.outputs)

    def prepare(self, assets: Assets) -> Any:
        """Return what `use` takes, from the assets that the step reads; what it has where these are not among them."""
        if not self._parts or self._parts[0][0] not in assets:
            return self._prepared
        return self._form.prepare([assets[asset][tensor] for asset, _, tensor in self._parts])

    def use(self, prepared: Any) -> None:
        """Run with what `prepare` returned from now on."""
        self._prepared = prepared

    def run(self, tensors: Tensors, engines: Mapping[str, Engine]) -> None:
        """Compute what the step writes, in place."""
        if self._stage:
            engines[self._stage].run(tensors, tensors)
        else:
            reads, writes = ([tensors[name] for name in names] for names in (self.reads, self.writes))
            self._form.run(self._prepared, reads, writes)


def run_steps(
    manifest: BundleManifest, steps: Sequence[Step], engines: Mapping[str, Engine], assets: Assets, batch: FloatArray
) -> Tensors:
    """Run steps on preprocessed images, float32 [n, 3, h, w], and return every tensor that they write."""
    specs = list_tensors(manifest, steps)
    tensors = {name: np.empty(spec.with_batch(len(batch)), np.float32) for name, spec in specs.items()}
    tensors[IMAGE] = np.array(batch, np.float32)
    for step in steps:
        one = HostStep(manifest, step, specs)
        one.use(one.prepare(assets))
        one.run(tensors, engines)
    return tensors

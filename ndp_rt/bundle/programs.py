"""A bundle's programs against the bundle: every tensor is written before it is read, once, and its shapes agree."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ndp_rt.errors import BundleError, InputError
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.manifest import BundleManifest, StageSpec
from ndp_rt.program.program import DEVICE_KINDS, IMAGE, MAP, OWN_SCORE, Program, Step
from ndp_rt.program.tensors import TensorSpec

Tensors = dict[str, TensorSpec]


def check_manifest(manifest: BundleManifest) -> None:
    """Check every program and every asset's making.

    Raises:
        BundleError: a step reads what nothing before it writes, writes what is there, or names an unknown stage, op or
            asset; shapes disagree; an output is missing. The message names the program and the step.
    """
    for kind, programs in manifest.programs.items():
        if kind not in DEVICE_KINDS:
            raise BundleError(f"manifest: programs: expected {' or '.join(DEVICE_KINDS)}, got '{kind}'.")
        for name, program in programs.items():
            tensors = list_tensors(manifest, program.steps, f"program '{name}' on {kind}")
            _check_outputs(manifest, program, tensors, f"program '{name}' on {kind}")
    for name, asset in manifest.assets.items():
        if asset.file not in manifest.files:
            raise BundleError(f"manifest: asset '{name}': its file {asset.file} is not among 'files'.")
        tensors = list_tensors(manifest, asset.made_by, f"asset '{name}'")
        for own, made in asset.made_from.items() if asset.is_swappable else ():
            if made not in tensors or own not in asset.tensors:
                raise BundleError(f"manifest: asset '{name}': no step makes '{made}' for its tensor '{own}'.")


def list_tensors(manifest: BundleManifest, steps: Sequence[Step], where: str = "the program") -> Tensors:
    """Return every tensor of a sequence of steps, `image` first, with its shape.

    Raises:
        BundleError: as `check_manifest`.
    """
    contract = manifest.input
    tensors = {IMAGE: TensorSpec(name=IMAGE, shape=(None, 3, contract.height_px, contract.width_px))}
    writers = {name: step for step in steps for name in _list_writes(manifest, step)}
    for number, step in enumerate(steps, 1):
        place = f"manifest: {where}, step {number} ({step})"
        if step.engine:
            written = _infer_stage(manifest, step, tensors, writers, place)
        else:
            read = [_find(manifest, name, tensors, writers, place) for name in step.reads]
            try:
                inferred = find_op(step.op).infer(step.params, read)
            except InputError as error:
                raise BundleError(f"{place}: {error}") from error
            if len(inferred) != len(step.writes):
                raise BundleError(f"{place}: expected {len(inferred)} names in 'writes', got {len(step.writes)}.")
            written = [replace(spec, name=name) for name, spec in zip(step.writes, inferred, strict=True)]
        for spec in written:
            if spec.name in tensors:
                raise BundleError(f"{place}: writes '{spec.name}', which an earlier step has written.")
            tensors[spec.name] = spec
    return tensors


def list_reads(manifest: BundleManifest, step: Step, tensors: Mapping[str, TensorSpec]) -> list[TensorSpec]:
    """Return what an op's step reads, parts of assets included, under the names that it reads them by."""
    found = []
    for name in step.reads:
        asset, dot, part = name.partition(".")
        spec = manifest.assets[asset].tensors[part] if dot else tensors[name]
        found.append(replace(spec, name=name))
    return found


def _infer_stage(
    manifest: BundleManifest, step: Step, tensors: Tensors, writers: Mapping[str, Step], place: str
) -> list[TensorSpec]:
    """Return what a stage writes, after comparing what it reads with what is there."""
    stage = manifest.stages.get(step.engine)
    if stage is None:
        raise BundleError(f"{place}: expected a stage out of {', '.join(manifest.stages)}, got '{step.engine}'.")
    for part in stage.parts:
        if part not in manifest.stages:
            raise BundleError(f"{place}: its part '{part}' is no stage.")
    for name, spec in stage.inputs.items():
        found = _find(manifest, name, tensors, writers, place)
        if found.shape != spec.shape:
            raise BundleError(f"{place}: expected '{name}' {spec.to_dims()}, got {found.to_dims()}.")
    return list(stage.outputs.values())


def _find(manifest: BundleManifest, name: str, tensors: Tensors, writers: Mapping[str, Step], place: str) -> TensorSpec:
    """Return a tensor that a step reads: one that is there by then, or an asset's."""
    asset, dot, tensor = name.partition(".")
    if dot:
        if asset not in manifest.assets or tensor not in manifest.assets[asset].tensors:
            raise BundleError(f"{place}: reads '{name}', which no asset has.")
        return replace(manifest.assets[asset].tensors[tensor], name=name)
    if name in tensors:
        return tensors[name]
    if name in writers:
        raise BundleError(f"{place}: reads '{name}' before {writers[name]} writes it: a cycle, or out of order.")
    raise BundleError(f"{place}: reads '{name}', which nothing writes.")


def _list_writes(manifest: BundleManifest, step: Step) -> Sequence[str]:
    stage: StageSpec | None = manifest.stages.get(step.engine)
    return step.writes if step.op else tuple(stage.outputs) if stage is not None else ()


def _check_outputs(manifest: BundleManifest, program: Program, tensors: Tensors, where: str) -> None:
    if MAP not in program.outputs:
        raise BundleError(f"manifest: {where}: expected an output '{MAP}', got {', '.join(program.outputs) or 'none'}.")
    for output, name in program.outputs.items():
        if name not in tensors:
            raise BundleError(f"manifest: {where}: its output '{output}' is '{name}', which nothing writes.")
    if manifest.decision.score == "output" and (
        program.outputs.get(OWN_SCORE) != OWN_SCORE or tensors[OWN_SCORE].shape != (None,)
    ):
        raise BundleError(f"manifest: {where}: expected an output '{OWN_SCORE}' ['n'], which its decision names.")
    found, contract = tensors[program.outputs[MAP]].shape, manifest.input
    if len(found) != 4 or found[0] is not None or found[1] != 1:
        raise BundleError(f"manifest: {where}: expected the map as ['n', 1, h, w], got {list(found)}.")
    if (found[2] or 0) > contract.height_px or (found[3] or 0) > contract.width_px:
        raise BundleError(f"manifest: {where}: the map {list(found)} is larger than the image.")

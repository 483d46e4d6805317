"""Typed GPU stages as files, so that a machine without the onnx package can build engines from them.

A folder holds `stages.json` and one ONNX file a stage, weights inside. The same bundle, precision and plan give the
same bytes. Reading needs no onnx package. The bundle itself (reference, golden vectors) travels beside the folder.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.open import Bundle, is_plain_name
from ndp_rt.errors import BundleError, InputError, StorageError
from ndp_rt.files import hash_file
from ndp_rt.program.tensors import TensorSpec

STAGES_FORMAT = "ndp-rt stages"
STAGES_FORMAT_VERSION = 1
STAGES_FILE = "stages.json"


@dataclass(frozen=True, kw_only=True)
class StageFile:
    """One typed stage: its file, and its tensors in order; a None in a shape is the batch axis."""

    path: Path
    sha256: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, kw_only=True)
class StageFolder:
    """The stages of one GPU plan in one precision, in the order in which they run."""

    path: Path
    bundle_name: str
    bundle_fingerprint: str  # with that of its int8 layers, if these are in the stages (`Bundle.engine_fingerprint`)
    precision: str
    plan: str
    stages: Mapping[str, StageFile]

    @property
    def size_bytes(self) -> int:
        """The size of the ONNX files together."""
        return sum(stage.path.stat().st_size for stage in self.stages.values())


def write_stages(
    bundle: Bundle,
    precision: str,
    folder: Path,
    *,
    plan: str | None = None,
    calibration: NDArray[np.float32] | None = None,
) -> StageFolder:
    """Write a bundle's typed stages for a GPU plan; needs the onnx package.

    Args:
        precision: one of `typed_graph.BORDER_DTYPES`.
        folder: empty, or not there yet.
        plan: the name of one of its programs for a GPU; None: the first.
        calibration: for int8, and only for it: images float32 [k, 3, h, w], preprocessed; all layers that gain by it
            then compute in int8. None: those that are chosen in the bundle.

    Raises:
        InputError: another precision or plan, or calibration images missing, of another shape or not needed.
        BundleError: a stage cannot be read or cut.
        MissingExtraError: int8 from images without a backend for the CPU, which finds the ranges.
        EngineError: the precision cannot hold the weights, or onnx's checker refuses a graph.
        StorageError: the folder holds something, or cannot be written.
    """
    import onnx

    from ndp_rt.graphs.typed import make_typed

    plan, _ = bundle.manifest.find_program("cuda", plan)
    models = _make_models(bundle, precision, plan, calibration)
    contents, entries = {}, {}
    for name, model in models.items():
        typed = make_typed(model, precision)
        check_graph(onnx, typed, name)
        contents[f"{name}.onnx"] = typed.SerializeToString(deterministic=True)
        entries[name] = {
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256(contents[f"{name}.onnx"]).hexdigest(),
            "inputs": _describe_values(onnx, typed.graph.input),
            "outputs": _describe_values(onnx, typed.graph.output),
        }
    document = {
        "format": STAGES_FORMAT,
        "format_version": STAGES_FORMAT_VERSION,
        "bundle_name": bundle.manifest.name,
        "bundle_fingerprint": bundle.fingerprint if calibration is not None else bundle.engine_fingerprint(precision),
        "precision": precision,
        "plan": plan,
        "stages": entries,
    }
    # The description comes last: a folder without it was not finished.
    contents[STAGES_FILE] = (json.dumps(document, indent=2) + "\n").encode()
    _write(folder, contents)
    return open_stages(folder)


def _make_models(
    bundle: Bundle, precision: str, plan: str, calibration: NDArray[np.float32] | None
) -> Mapping[str, Any]:
    """Return the float32 graphs of a plan, quantised for int8."""
    from ndp_rt.graphs.stages import make_stages

    if precision != "int8":
        if calibration is not None:
            raise InputError(f"expected no calibration images for precision {precision}, got some. They are for int8.")
        return make_stages(bundle, plan)
    from ndp_rt.engines.int8_ranges import measure_all_layers
    from ndp_rt.graphs.quantised import quantise_stages

    layers = bundle.int8_layers() if calibration is None else measure_all_layers(bundle, calibration)
    if layers is None or not layers.limits_of(precision):
        raise InputError(
            f"{bundle.path.name}: no layers are chosen for int8, and no calibration images came. Choose them with: "
            f"ndp-rt quantise {bundle.path}, or write int8 stages with: ndp-rt export-stages {bundle.path} --precision "
            "int8 --calibrate IMAGES -o DIR, and build with --onnx-stages DIR."
        )
    return quantise_stages(bundle, plan, layers)


def check_graph(onnx: Any, model: Any, name: str) -> None:
    """Check a stage's graph, or the file that it is in, with onnx's own checker, types and shapes included.

    Raises:
        EngineError: it refuses.
    """
    from ndp_rt.errors import EngineError

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"onnx's checker refuses stage '{name}': {error}. Report this.") from error


def open_stages(folder: Path) -> StageFolder:
    """Read what `write_stages` wrote, and compare every file with its hash.

    Raises:
        BundleError: no such folder, a newer format, or a file that is missing or was changed.
    """
    path = folder.absolute()
    remedy = "Write the stages again with: ndp-rt export-stages NAME.ndp -o DIR"
    try:
        document = json.loads((path / STAGES_FILE).read_text(encoding="utf-8"))
        if (document["format"], document["format_version"]) != (STAGES_FORMAT, STAGES_FORMAT_VERSION):
            raise BundleError(
                f"{path}: expected '{STAGES_FORMAT}' version {STAGES_FORMAT_VERSION}, got '{document['format']}' "
                f"version {document['format_version']}. {remedy}"
            )
        stages = {name: _read_stage(path, entry) for name, entry in document["stages"].items()}
        found = StageFolder(path=path, stages=stages, **{name: document[name] for name in _PLAIN_FIELDS})
    except BundleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path / STAGES_FILE}: cannot be read ({error!r}). {remedy}") from error
    for stage in stages.values():
        if not stage.path.is_file() or hash_file(stage.path) != stage.sha256:
            raise BundleError(f"{stage.path}: is missing, cut short or changed. {remedy}")
    return found


def check_stages(found: StageFolder, bundle: Bundle, precision: str, plan: str) -> None:
    """Check that stages are those that a build needs, with their weights inside.

    Raises:
        BundleError: they are of another bundle, precision or plan, or read weights from elsewhere.
    """
    remedy = f"Write them with: ndp-rt export-stages {bundle.path} --precision {precision} --plan {plan} -o DIR"
    # int8 stages may have layers of the bundle's choice or, from images of their own, all of them.
    if found.bundle_fingerprint not in (bundle.fingerprint, bundle.engine_fingerprint(precision)):
        raise BundleError(
            f"{found.path}: the stages are of another bundle than {bundle.path.name}, or of another export of it "
            f"('{found.bundle_name}'), or have int8 layers that it had before. {remedy}"
        )
    if (found.precision, found.plan) != (precision, plan):
        raise BundleError(
            f"{found.path}: expected stages in {precision} for plan {plan}, got {found.precision} for {found.plan}. "
            f"{remedy}"
        )
    for stage in found.stages.values():
        locations = list_external_locations(stage.path.read_bytes())
        if locations:
            raise BundleError(
                f"{stage.path}: expected weights inside it, got weights in {', '.join(sorted(locations))}. {remedy}"
            )


_PLAIN_FIELDS = ("bundle_name", "bundle_fingerprint", "precision", "plan")


def _read_stage(folder: Path, entry: Mapping[str, Any]) -> StageFile:
    if not is_plain_name(entry["file"]):
        raise BundleError(f"{folder}: expected the name of a file directly in it, got {entry['file']!r}.")
    return StageFile(
        path=folder / entry["file"],
        sha256=entry["sha256"],
        inputs=_read_specs(entry["inputs"]),
        outputs=_read_specs(entry["outputs"]),
    )


def _read_specs(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    return {
        name: dataclasses.replace(TensorSpec.from_dims(name, entry["dims"]), dtype=str(entry["dtype"]))
        for name, entry in entries.items()
    }


def _describe_values(onnx: Any, values: Any) -> dict[str, dict[str, Any]]:
    """Return dims and element type of a graph's inputs or outputs."""
    names = {
        onnx.TensorProto.FLOAT: "float32",
        onnx.TensorProto.FLOAT16: "float16",
        onnx.TensorProto.BFLOAT16: "bfloat16",
    }
    described = {}
    for value in values:
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        described[value.name] = {"dtype": names[tensor.elem_type], "dims": dims}
    return described


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StorageError(
                f"{folder}: expected an empty folder, or a new one, got one that holds files. Choose another."
            )
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror or error}). Free some space, or choose a folder that you "
            "may write to."
        ) from error

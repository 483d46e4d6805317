"""Folders of typed stages: ONNX files for a GPU, made where the onnx package is, built into engines where TensorRT is.

`stages.json` says which bundle and precision they are of, with size and SHA-256 of every file; it is written last.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle
from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.open import hash_file, is_plain_name
from ndp_rt.errors import BundleError, InputError, MissingExtraError, StorageError

STAGES_FORMAT = "ndp-rt stages"
STAGES_FORMAT_VERSION = 1
STAGES_FILE = "stages.json"


def write_stage_folder(bundle: Bundle, precision: str, folder: Path) -> None:
    """Write every stage of a GPU's plans, typed for `precision`, into a folder that is empty or not there yet.

    Raises:
        InputError: the folder holds something; or a precision that is not offered.
        BundleError: a stage that cannot be cut or typed.
        MissingExtraError: the onnx package is not installed.
        StorageError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already and not empty; a new or empty folder is taken. Choose another.")
    try:
        # Imported here: what it needs (the onnx package) is not needed where finished stages are built.
        typed_graph = import_module("ndp_rt.engines.typed_graph")
    except ImportError as error:
        raise MissingExtraError(
            f"typed stages cannot be made here ({error}): pip install onnx. Or make them elsewhere with "
            "--write-onnx-stages DIR, and give that folder with --onnx-stages."
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        typed_graph.write_stages(bundle, precision, folder)
        files = {path.name: path for path in sorted(folder.iterdir())}
        document = {
            "format": STAGES_FORMAT,
            "format_version": STAGES_FORMAT_VERSION,
            "bundle": bundle.manifest.name,
            "bundle_fingerprint": bundle.fingerprint,
            "precision": precision,
            "files": {n: {"sha256": hash_file(path), "bytes": path.stat().st_size} for n, path in files.items()},
        }
        (folder / STAGES_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{folder}: stages cannot be written ({error.strerror or error}). Free some space."
        ) from error


def open_stage_folder(folder: Path, bundle: Bundle, precision: str, stages: Sequence[str]) -> dict[str, Path]:
    """Return the ONNX file of each stage, after comparing the folder with the bundle and with its own list of files.

    Raises:
        BundleError: it is missing, cut short or changed, or was made from another bundle or for another precision; the
            message says what to do.
    """
    advice = f"Make it again with: ndp-rt build-engine ... --precision {precision} --write-onnx-stages DIR"
    try:
        document = json.loads((folder / STAGES_FILE).read_text(encoding="utf-8"))
        problem = _find_problem(folder, document, bundle, precision)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{STAGES_FILE} cannot be read ({error})"
    paths = {stage: folder / f"{stage}.onnx" for stage in stages}
    absent = [stage for stage, path in paths.items() if not path.is_file()]
    if not problem and absent:
        problem = f"holds no stage {', '.join(absent)}"
    if problem:
        raise BundleError(f"{folder}: {problem}; it is not built. {advice}")
    return paths


def _find_problem(folder: Path, document: Mapping[str, Any], bundle: Bundle, precision: str) -> str | None:
    """Say why a folder is not the one that is needed, or return None."""
    version = document["format_version"]
    if document["format"] != STAGES_FORMAT or version != STAGES_FORMAT_VERSION:
        return f"its format is '{document['format']}' {version}, this ndp-rt takes '{STAGES_FORMAT}' 1"
    if document["bundle_fingerprint"] != bundle.fingerprint:
        return f"its stages were made from another bundle, '{document['bundle']}', or from another export of this one"
    if document["precision"] != precision:
        return f"its stages are in {document['precision']}, asked for is {precision}"
    files: Mapping[str, Mapping[str, Any]] = document["files"]
    for name, entry in files.items():
        path = folder / name
        if not is_plain_name(name) or not path.is_file():
            return f"lacks {name!r}"
        if path.stat().st_size != entry["bytes"] or hash_file(path) != entry["sha256"]:
            return f"{name} was cut short or changed since it was written"
        if path.suffix == ".onnx":
            try:
                outside = list_external_locations(path.read_bytes()) - set(files)
            except InputError as error:
                return f"{name} is no ONNX file ({error})"
            if outside:
                return f"{name} keeps weights in {', '.join(sorted(outside))}, which is no file of the folder"
    return None

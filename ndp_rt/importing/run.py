"""Turns an ONNX model into a bundle: its graph with a bundle's image in front and a map behind, and golden vectors."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.bundle.open import GOLDEN_FILE, Bundle
from ndp_rt.bundle.write import BUNDLE_SUFFIX, check_target, write_bundle
from ndp_rt.config import find_build_memory_bytes
from ndp_rt.engines.build import run_child
from ndp_rt.engines.golden_report import RELATIVE
from ndp_rt.errors import InputError
from ndp_rt.files import hash_file, make_temporary_folder
from ndp_rt.importing.terms import ImageInput, ImportSettings, Made
from ndp_rt.program.manifest import BundleManifest, InputContract, ModelSpec, StageSpec
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE, DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec

STAGE, MODEL_FILE, MADE_FILE = "fused", "model.onnx", "made.json"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A bundle that was written, and what was made of the model."""

    bundle: Bundle
    image: ImageInput
    result: str  # the output that the map was made of
    is_score_alone: bool
    removed: tuple[str, ...]  # steps that were taken off the end, the last first
    unused: tuple[str, ...]  # the other outputs, in words
    score_difference: float | None  # of the model's own score from the map's, at most; None: it has none beside a map
    batches: bool  # whether it takes several images at once


def import_onnx(path: str | Path, output: str | Path, settings: ImportSettings | None = None) -> Imported:
    """Write a bundle of an ONNX model that gives an anomaly map or a score.

    The model is read, and runs, in a process of its own with limits of time and memory. ONNX Runtime makes the golden
    vectors that every engine is held to.

    Args:
        path: the model; weights may lie beside it.
        output: the bundle to write, NAME.ndp.
        settings: see there.

    Raises:
        InputError: the model cannot be brought in, or is not as the settings say; the message names the node or output.
        BundleError: it cannot be read.
        EngineError: ONNX Runtime refuses it, or it gives no finite numbers, or it takes too long.
        MissingExtraError: onnx or ONNX Runtime is not installed.
        StorageError: the bundle is there already, or cannot be written.

    Examples:
        >>> import_onnx("padim.onnx", "padim.ndp").result
        'anomaly_map'
    """
    path, target, settings = Path(path), Path(output).absolute(), settings or ImportSettings()
    if target.suffix != BUNDLE_SUFFIX:
        raise InputError(f"bundle path: expected a name that ends in {BUNDLE_SUFFIX}, got {target}.")
    check_target(target, settings.overwrite)
    with make_temporary_folder("import") as name:
        made = _convert(path, settings, Path(name))
        bundle = write_bundle(
            target,
            manifest_without_files=_make_manifest(target.stem, path, settings, made),
            files={one: (Path(name) / one).read_bytes() for one in (MODEL_FILE, GOLDEN_FILE)},
            overwrite=settings.overwrite,
        )
    return Imported(
        bundle=bundle,
        image=made.image,
        result=made.result,
        is_score_alone=made.is_score_alone,
        removed=made.removed,
        unused=made.unused,
        score_difference=made.score_difference,
        batches=made.batches,
    )


def _convert(path: Path, settings: ImportSettings, folder: Path) -> Made:
    """Let a child write the bundle's model and golden vectors into a folder, and return what it made of the model."""
    job = {
        "model": str(path),
        "settings": settings.to_json(),
        "folder": str(folder),
        "parent": os.getpid(),
        "memory_bytes": find_build_memory_bytes(),
    }
    run_child("ndp_rt.importing.worker", job, lambda line: None, "reading and running the model")
    return Made.from_json(json.loads((folder / MADE_FILE).read_text(encoding="utf-8")))


def _make_manifest(name: str, path: Path, settings: ImportSettings, made: Made) -> BundleManifest:
    rules, image = DecisionRules(**made.rules), made.image
    has_own = rules.score == "output"
    program = Program(steps=(Step(engine=STAGE),), outputs={MAP: MAP} | ({OWN_SCORE: OWN_SCORE} if has_own else {}))
    inputs = {IMAGE: TensorSpec(name=IMAGE, shape=(None, 3, image.height_px, image.width_px))}
    outputs = {MAP: TensorSpec(name=MAP, shape=(None, 1, *made.map_size_px))}
    outputs |= {OWN_SCORE: TensorSpec(name=OWN_SCORE, shape=(None,))} if has_own else {}
    return BundleManifest(
        name=name,
        model=ModelSpec(family="onnx", preset=settings.source or "imported"),
        input=InputContract(height_px=image.height_px, width_px=image.width_px),
        stages={STAGE: StageSpec(file=MODEL_FILE, inputs=inputs, outputs=outputs)},
        programs={kind: {STAGE: program} for kind in ("cpu", "cuda")},
        decision=rules,
        golden={"made_by": "ONNX Runtime", RELATIVE: True},
        provenance={
            "commands": [settings.command],
            "model": {"file": path.name, "sha256": hash_file(path), "removed": list(made.removed)},
        },
    )

"""Turns an ONNX model into a bundle: its graph with a bundle's image in front and a map behind, and golden vectors."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper
from safetensors.numpy import save

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.open import GOLDEN_FILE, Bundle
from ndp_rt.bundle.write import BUNDLE_SUFFIX, check_target, write_bundle
from ndp_rt.config import find_build_memory_bytes
from ndp_rt.decide.score import score_map
from ndp_rt.engines.build import run_child
from ndp_rt.errors import EngineError, InputError, NdpRtError
from ndp_rt.files import hash_file
from ndp_rt.graphs.folding import find_shapes, fix_batch, fold_constants
from ndp_rt.images.preprocess import preprocess
from ndp_rt.images.read import read_image
from ndp_rt.importing.adapt import PREFIX, Convention, add_prefix, drop_output, set_outputs
from ndp_rt.importing.model import ImageInput, describe, find_image, find_results, read_model
from ndp_rt.importing.tail import find_tail
from ndp_rt.program.manifest import BundleManifest, InputContract, ModelSpec, StageSpec
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE, DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.golden_inputs import ByteImage, make_noise, make_preprocessing_vectors, paint_mark, to_input

STAGE, MODEL_FILE = "fused", "model.onnx"
GOLDEN_COUNT = 4
MAX_MODEL_BYTES = 2**31 - 2**20  # of a protobuf file
EQUAL = 1e-5  # of a score and a map's largest value, as a share of the largest score
SOURCES = ("anomalib",)


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What an import is told; what is None is found out.

    Attributes:
        image, map, score: names of the model's input and outputs; `score` may also be "max" or "top_k_mean:K", of the
            map.
        size_px: height and width, where the model leaves them open.
        layout: "nchw" or "nhwc".
        convention: colour, scale, mean and standard deviation that the model expects.
        source: "anomalib": the end of its exports, normalised and clipped, is taken off.
        golden: a folder of images to make golden vectors of; None: noise.
        overwrite: replace a bundle of that name.
        command: for the provenance.

    Examples:
        >>> ImportSettings(source="anomalib", convention=Convention(colour="bgr", scale=255)).score is None
        True
    """

    image: str | None = None
    map: str | None = None
    score: str | None = None
    size_px: tuple[int, int] | None = None
    layout: str | None = None
    convention: Convention = field(default_factory=Convention)
    source: str | None = None
    golden: Path | None = None
    overwrite: bool = False
    command: str = "ndp_rt.import_onnx"

    def __post_init__(self) -> None:
        if self.source not in (None, *SOURCES):
            raise InputError(f"source: expected {' or '.join(SOURCES)}, got '{self.source}'.")


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
    batches: bool  # whether it computes several images at once


def import_onnx(path: str | Path, output: str | Path, settings: ImportSettings | None = None) -> Imported:
    """Write a bundle of an ONNX model that gives an anomaly map or a score.

    The model runs in a process of its own, in ONNX Runtime, to make the golden vectors that every engine is held to.

    Args:
        path: the model; weights may lie beside it.
        output: the bundle to write, NAME.ndp.
        settings: see there.

    Raises:
        InputError: the model cannot be brought in, or is not as the settings say; the message names the node or output.
        BundleError: it cannot be read.
        EngineError: ONNX Runtime refuses it, or it gives no finite numbers.
        MissingExtraError: onnx or ONNX Runtime is not installed.
        StorageError: the bundle is there already, or cannot be written.

    Examples:
        >>> import_onnx("padim.onnx", "padim.ndp").result
        'anomaly_map'
    """
    try:
        return _import(Path(path), Path(output).absolute(), settings or ImportSettings())
    except NdpRtError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: expected a model that fits into memory, got one that does not.") from error
    except Exception as error:  # whatever onnx raises of a file that is damaged or contradicts itself
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: expected a model that onnx accepts, got one that it refuses: {type(error).__name__}: {reason}"
        ) from error


def _import(path: Path, target: Path, settings: ImportSettings) -> Imported:
    if target.suffix != BUNDLE_SUFFIX:
        raise InputError(f"bundle path: expected a name that ends in {BUNDLE_SUFFIX}, got {target}.")
    check_target(target, settings.overwrite)
    model = read_model(path)
    image = find_image(path, model, settings.image, settings.layout, settings.size_px)
    add_prefix(model, image, settings.convention)
    outputs = _find_outputs(path, model)
    rules, chosen = _choose_result(path, model, outputs, settings)
    size_px = set_outputs(model, chosen.tensor, chosen.result, chosen.own_score)
    if max(size_px[0] - image.height_px, size_px[1] - image.width_px) > 0:
        raise InputError(
            f"{path}: expected a map no larger than the image, {image.height_px}x{image.width_px}, got "
            f"{describe(chosen.result)}. Export it for images of that size."
        )
    pictures = _read_pictures(settings.golden, image)
    inputs = np.concatenate([to_input(one) for one in pictures])
    maps, own_scores, batches = _run(path, model, inputs)
    rules, scores, difference = _score(rules, maps, own_scores)
    if rules.score != "output":
        drop_output(model, OWN_SCORE)
    manifest = _make_manifest(target.stem, image, size_px, rules, path, settings, chosen.removed)
    golden = {"image": np.stack(pictures).transpose(0, 3, 1, 2).copy(), "map": maps, "score": scores}
    files = {
        MODEL_FILE: _encode(path, model),
        GOLDEN_FILE: save(golden | make_preprocessing_vectors(manifest.input)),
    }
    bundle = write_bundle(target, manifest_without_files=manifest, files=files, overwrite=settings.overwrite)
    return Imported(
        bundle=bundle,
        image=image,
        result=chosen.result.name,
        is_score_alone=chosen.is_score_alone,
        removed=tuple(chosen.removed),
        unused=tuple(describe(value) for value in outputs if value.name != chosen.result.name),
        score_difference=difference,
        batches=batches,
    )


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What of a model becomes the map, and what is only compared with it."""

    result: ValueInfoProto  # an output, as the model has it
    tensor: str  # what of its graph is taken, the output or what it was before its end
    removed: Sequence[str]
    is_score_alone: bool
    own_score: tuple[str, int] | None  # a tensor, and its type


def _choose_result(
    path: Path, model: ModelProto, outputs: Sequence[ValueInfoProto], settings: ImportSettings
) -> tuple[DecisionRules | None, _Chosen]:
    """Return the rules of the decision, None where its scores will tell, and what of the model they are applied to."""
    rules, score_name = _read_rules(settings.score)
    found_map, found_score = find_results(path, outputs, settings.map, score_name)
    is_score_alone = found_map is None
    result = found_score if is_score_alone else found_map
    assert result is not None  # `find_results` has raised where there is neither
    other = None if is_score_alone or found_score is None else PREFIX + found_score.name
    tensor, removed = PREFIX + result.name, list[str]()
    if settings.source is not None:
        fold_constants(model)
        tensor, removed = find_tail(model, tensor)
        other = None if other is None else find_tail(model, other)[0]
    own_score = None if other is None or found_score is None else (other, found_score.type.tensor_type.elem_type)
    chosen = _Chosen(result=result, tensor=tensor, removed=removed, is_score_alone=is_score_alone, own_score=own_score)
    return rules, chosen


def _read_rules(score: str | None) -> tuple[DecisionRules | None, str | None]:
    """Return the rules of the decision, None if they are to be found, and the name of the model's score if given."""
    if score is None:
        return None, None
    name, colon, count = score.partition(":")
    if name == "top_k_mean":
        if not colon or not count.isdecimal():
            raise InputError(
                f"score: expected max, top_k_mean:K with K from 1, or the name of an output, got '{score}'."
            )
        return DecisionRules(smooth="none", score="top_k_mean", k=int(count)), None
    if score == "max":
        return DecisionRules(smooth="none"), None
    return DecisionRules(smooth="none", score="output"), score


def _score(
    rules: DecisionRules | None, maps: FloatArray, own_scores: FloatArray | None
) -> tuple[DecisionRules, FloatArray, float | None]:
    """Return the rules, the scores [k] of maps [k, 1, h, w] by them, and how far the model's own are from the map's.

    Where no rule was asked for, the model's own score is taken if it is not the map's largest value.
    """
    of_map = rules if rules is not None and rules.score != "output" else DecisionRules(smooth="none")
    scores = np.array([score_map(one, of_map) for one in maps[:, 0]], np.float32)
    if own_scores is None:
        return of_map, scores, None
    difference = float(np.abs(own_scores - scores).max())
    is_other = difference > EQUAL * max(1.0, float(np.abs(scores).max()))
    if (rules is None and is_other) or (rules is not None and rules.score == "output"):
        return DecisionRules(smooth="none", score="output"), own_scores, difference
    return of_map, scores, difference


def _find_outputs(path: Path, model: ModelProto) -> list[ValueInfoProto]:
    """Return a model's outputs, called as it calls them, with their shapes for one image."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in fixed.graph.output}
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        fix_batch(fixed, 1)
        shapes = find_shapes(fixed)
    except EngineError as error:
        raise InputError(f"{path}: expected shapes that follow from the image's, got another ({error})") from error
    return [
        helper.make_tensor_value_info(name.removeprefix(PREFIX), kind, shapes.get(name, ()))
        for name, kind in kinds.items()
    ]


def _read_pictures(folder: Path | None, image: ImageInput) -> list[ByteImage]:
    """Return pictures [h, w, 3] of the network's size: of a folder, or noise without and with a mark."""
    if folder is None:
        noise = make_noise(image.height_px, image.width_px)
        grey = np.full_like(noise, 128)
        return [noise, paint_mark(noise), grey, paint_mark(grey)]
    from ndp_rt.images.listing import list_images

    paths = list_images([str(folder)]).files[:GOLDEN_COUNT]
    paths *= 2 if len(paths) == 1 else 1  # a pair shows whether the model takes two at once
    contract, pictures = InputContract(height_px=image.height_px, width_px=image.width_px), []
    for one in paths:
        out = np.empty((3, image.height_px, image.width_px), np.float32)
        preprocess(read_image(one), contract, out)
        pictures.append(np.rint(out.transpose(1, 2, 0) * 255).astype(np.uint8))
    return pictures


def _run(path: Path, model: ModelProto, images: FloatArray) -> tuple[FloatArray, FloatArray | None, bool]:
    """Return the maps [k, 1, h, w] of images, the model's own scores [k], and whether it computes two at once alike."""
    with tempfile.TemporaryDirectory(prefix="ndp-rt-import-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(_encode(path, model))
        np.save(folder / "images.npy", images)
        found = _run_child(folder, 1)
        try:
            pairs = _run_child(folder, 2)
            batches = all(
                len(pairs[name]) == len(images) // 2 * 2
                and np.allclose(pairs[name], values[: len(pairs[name])], rtol=1e-4, atol=1e-5)
                for name, values in found.items()
            )
        except EngineError:
            batches = False
    maps = found[MAP]
    if not all(np.isfinite(values).all() for values in found.values()):
        raise EngineError(f"{path}: expected finite results of its golden images, got NaN or infinity. It is damaged.")
    return maps, found.get(OWN_SCORE), batches


def _run_child(folder: Path, batch: int) -> dict[str, FloatArray]:
    job = {"folder": str(folder), "batch": batch, "parent": os.getpid(), "memory_bytes": find_build_memory_bytes()}
    run_child("ndp_rt.importing.reference", job, lambda line: None, "running the model")
    with np.load(folder / f"results-{batch}.npz") as found:
        return dict(found)


def _encode(path: Path, model: ModelProto) -> bytes:
    if model.ByteSize() > MAX_MODEL_BYTES:
        raise InputError(f"{path}: expected a model of less than 2 GiB, got {model.ByteSize() / 2**30:.1f}.")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _make_manifest(
    name: str,
    image: ImageInput,
    size_px: tuple[int, int],
    rules: DecisionRules,
    path: Path,
    settings: ImportSettings,
    removed: Sequence[str],
) -> BundleManifest:
    has_own = rules.score == "output"
    program = Program(steps=(Step(engine=STAGE),), outputs={MAP: MAP} | ({OWN_SCORE: OWN_SCORE} if has_own else {}))
    inputs = {IMAGE: TensorSpec(name=IMAGE, shape=(None, 3, image.height_px, image.width_px))}
    outputs = {MAP: TensorSpec(name=MAP, shape=(None, 1, *size_px))}
    outputs |= {OWN_SCORE: TensorSpec(name=OWN_SCORE, shape=(None,))} if has_own else {}
    return BundleManifest(
        name=name,
        model=ModelSpec(family="onnx", preset=settings.source or "imported"),
        input=InputContract(height_px=image.height_px, width_px=image.width_px),
        stages={STAGE: StageSpec(file=MODEL_FILE, inputs=inputs, outputs=outputs)},
        programs={kind: {STAGE: program} for kind in ("cpu", "cuda")},
        decision=rules,
        golden={"made_by": "ONNX Runtime, from the imported model"},
        provenance={
            "commands": [settings.command],
            "model": {"file": path.name, "sha256": hash_file(path), "removed": list(removed)},
        },
    )

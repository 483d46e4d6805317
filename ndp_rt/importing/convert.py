"""Makes of an ONNX model what a bundle holds: its graph, a bundle's image in front and a map behind, golden vectors."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from safetensors.numpy import save

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.open import GOLDEN_FILE
from ndp_rt.decide.score import score_map
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.onnxruntime.engine import open_graph
from ndp_rt.errors import EngineError, InputError
from ndp_rt.graphs.folding import find_shapes, fix_batch, fold_constants
from ndp_rt.images.preprocess import preprocess
from ndp_rt.images.read import read_image
from ndp_rt.importing.adapt import PREFIX, add_difference, add_prefix, drop_output, set_outputs
from ndp_rt.importing.model import describe, find_image, find_results, list_sizes, read_model
from ndp_rt.importing.run import MADE_FILE, MODEL_FILE
from ndp_rt.importing.tail import find_tail
from ndp_rt.importing.terms import DIFFERENCE, ImageInput, ImportSettings, Made
from ndp_rt.program.manifest import InputContract
from ndp_rt.program.program import IMAGE, MAP, OWN_SCORE, DecisionRules
from ndp_rt.runtime.golden_inputs import ByteImage, make_noise, make_preprocessing_vectors, paint_mark, to_input

GOLDEN_COUNT = 4
MAX_MODEL_BYTES = 2**31 - 2**20  # of a protobuf file
EQUAL = 1e-5  # of a score and a map's largest value, as a share of the largest score


def convert(path: Path, settings: ImportSettings, folder: Path) -> None:
    """Write a bundle's model, its golden vectors and last what was made of the model into a folder.

    Args:
        path: the model, which runs here.
        settings: as for `import_onnx`.
        folder: that they are written into, MADE_FILE last.

    Raises:
        NdpRtError: as `import_onnx`.
    """
    model = read_model(path)
    image = find_image(path, model, name=settings.image, layout=settings.layout, open_px=settings.size_px)
    if settings.size_px not in (None, (image.height_px, image.width_px)):
        raise InputError(
            f"--size: expected what the model takes, {image.height_px}x{image.width_px}, got "
            f"{'x'.join(map(str, settings.size_px))}. Leave it out."
        )
    add_prefix(model, image, settings.convention)
    outputs = _find_outputs(path, model)
    if settings.map is not None and settings.map.startswith(DIFFERENCE):
        outputs = [_add_difference(path, model, outputs, image, settings.map), *outputs]
    rules, chosen = _choose_result(path, model, outputs, image, settings)
    size_px = set_outputs(model, chosen.tensor, chosen.result, chosen.own_score)
    if max(size_px[0] - image.height_px, size_px[1] - image.width_px) > 0:
        raise InputError(
            f"{path}: expected a map no larger than the image, {image.height_px}x{image.width_px}, got "
            f"{describe(chosen.result)}. Export it for images of that size."
        )
    pictures = _read_pictures(settings.golden, image)
    inputs = np.concatenate([to_input(one) for one in pictures])
    whole = folder / "whole.onnx"  # with the model's own score, whatever the rules will be
    whole.write_bytes(_encode(path, model))
    found = _run(whole, inputs)
    if not all(np.isfinite(values).all() for values in found.values()):
        raise EngineError(f"{path}: expected finite results of its golden images, got NaN or infinity. It is damaged.")
    rules, scores, difference = _score(rules, found[MAP], found.get(OWN_SCORE))
    if rules.score != "output":
        drop_output(model, OWN_SCORE)
    (folder / MODEL_FILE).write_bytes(_encode(path, model))
    golden = {"image": np.stack(pictures).transpose(0, 3, 1, 2).copy(), "map": found[MAP], "score": scores}
    contract = InputContract(height_px=image.height_px, width_px=image.width_px)
    (folder / GOLDEN_FILE).write_bytes(save(golden | make_preprocessing_vectors(contract)))
    made = Made(
        image=image,
        result=chosen.result.name,
        map_size_px=size_px,
        is_score_alone=chosen.is_score_alone,
        rules=asdict(rules),
        removed=tuple(chosen.removed),
        unused=tuple(describe(value) for value in outputs if value.name != chosen.result.name),
        score_difference=difference,
        batches=_takes_pairs(model),
    )
    (folder / MADE_FILE).write_text(json.dumps(asdict(made)), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What of a model becomes the map, and what is only compared with it."""

    result: ValueInfoProto  # an output, as the model has it
    tensor: str  # what of its graph is taken, the output or what it was before its end
    removed: Sequence[str]
    is_score_alone: bool
    own_score: tuple[str, int] | None  # a tensor, and its type


def _choose_result(
    path: Path, model: ModelProto, outputs: Sequence[ValueInfoProto], image: ImageInput, settings: ImportSettings
) -> tuple[DecisionRules | None, _Chosen]:
    """Return the rules of the decision, None where its scores will tell, and what of the model they are applied to."""
    rules, score_name = _read_rules(settings.score)
    found_map, found_score = find_results(path, outputs, image, settings.map, score_name)
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


def _add_difference(
    path: Path, model: ModelProto, outputs: Sequence[ValueInfoProto], image: ImageInput, wanted: str
) -> ValueInfoProto:
    """Add the difference of a picture from the image to a model's outputs, called as it is asked for."""
    shape, name = image.make_shape(1), wanted.removeprefix(DIFFERENCE)
    if not any(value.name == name and list_sizes(value) == shape for value in outputs):
        raise InputError(
            f"{path}: expected an output '{name}' of the image's sizes, {list(shape)}, got the outputs "
            f"{'; '.join(map(describe, outputs))}."
        )
    add_difference(model, image, name, wanted)
    return helper.make_tensor_value_info(wanted, TensorProto.FLOAT, [1, 1, image.height_px, image.width_px])


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
    """Return two or more pictures [h, w, 3] of the network's size: of a folder, or noise and a mark on flat grey.

    No two are the same, so an engine that mixes the images of a batch is found. Those made here have contrast
    everywhere, and edges between areas without any. Each further one would take the time of an inspection, here and
    when engines are checked.
    """
    if folder is None:
        noise = make_noise(image.height_px, image.width_px)
        return [noise, paint_mark(np.full_like(noise, 128))]
    from ndp_rt.images.listing import list_images

    paths = list_images([str(folder)]).files[:GOLDEN_COUNT]
    contract = InputContract(height_px=image.height_px, width_px=image.width_px)
    pictures: dict[bytes, ByteImage] = {}
    for one in paths:
        out = np.empty((3, image.height_px, image.width_px), np.float32)
        preprocess(read_image(one), contract, out)
        picture = np.rint(out.transpose(1, 2, 0) * 255).astype(np.uint8)
        pictures[picture.tobytes()] = picture
    found = list(pictures.values())
    return found if len(found) > 1 else [*found, paint_mark(found[0])]


def _run(path: Path, images: FloatArray) -> dict[str, FloatArray]:
    """Return the outputs [k, ...] of a model in ONNX Runtime for images [k, 3, h, w], one at a time."""
    engine = open_graph(path, EngineOptions())
    found: dict[str, list[FloatArray]] = {name: [] for name in engine.outputs}
    for start in range(len(images)):
        outputs = {name: np.empty(spec.with_batch(1), np.float32) for name, spec in engine.outputs.items()}
        engine.run({IMAGE: images[start : start + 1]}, outputs)
        for name, values in outputs.items():
            found[name].append(values)
    engine.close()
    return {name: np.concatenate(values) for name, values in found.items()}


def _takes_pairs(model: ModelProto) -> bool:
    """Tell by its shapes whether a model takes two images at once; it is changed.

    Whether each of them then gets what it gets alone, the golden vectors tell when an engine for several is built.
    """
    try:
        fix_batch(model, 2)
        shapes = find_shapes(model)
    except MemoryError:
        raise
    except Exception:  # whatever onnx raises of constants that follow from the number of images
        return False
    sizes = {name: math.prod(size or 0 for size in shape) for name, shape in shapes.items()}
    reshaped = [node for node in model.graph.node if node.op_type == "Reshape"]  # to a shape of one image, it may be
    return all(sizes.get(node.input[0]) == sizes.get(node.output[0]) for node in reshaped) and all(
        shapes.get(value.name, ())[:1] == (2,) for value in model.graph.output
    )


def _encode(path: Path, model: ModelProto) -> bytes:
    if model.ByteSize() > MAX_MODEL_BYTES:
        raise InputError(f"{path}: expected a model of less than 2 GiB, got {model.ByteSize() / 2**30:.1f}.")
    content: bytes = model.SerializeToString(deterministic=True)
    return content

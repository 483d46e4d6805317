"""The graphs that a GPU plan runs: a bundle's stages cut before the weighted sum of the maps, and merged.

`fuse_maps` and `smooth` are kernels of ours, so a stage that gives `map` in the bundle gives its three terms here: am1,
am2 and am3, the sigmoid maps of levels 1 to 3 before they are upsampled, weighted and added (eq. 11).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ndp_rt.bundle import Bundle
from ndp_rt.errors import BundleError, InputError
from ndp_rt.graphs.folding import find_shapes, fold_constants, load_model, remove_unused
from ndp_rt.kernels.fuse_maps.definition import MAP_WEIGHTS, upsample_bilinear
from ndp_rt.program.manifest import GPU_PLAN_STAGES

TAIL_STAGES = ("decoder", "head", "segmentation")
MAP_NAMES = ("am1", "am2", "am3")
WEIGHT_TOLERANCE = 1e-3  # of a map's weight and of an upsampling matrix, which may be stored in half precision
HALF_PIXEL_MODES = ("half_pixel", "pytorch_half_pixel")  # they differ for a target of one pixel alone
RESIZE_DEFAULTS = {"antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}


def make_gpu_stages(bundle: Bundle, plan: str) -> dict[str, ModelProto]:
    """Return the graphs of a GPU plan by name, in float32, with all weights inside and constants folded.

    Args:
        bundle: opened.
        plan: one of `ndp_rt.program.manifest.GPU_PLAN_STAGES`.

    Raises:
        InputError: another plan.
        BundleError: a stage cannot be read, or its map is no weighted sum of three upsampled sigmoid maps.
    """
    if plan not in GPU_PLAN_STAGES:
        raise InputError(f"GPU plan is '{plan}'; one of {', '.join(GPU_PLAN_STAGES)} is taken.")
    return {name: make_gpu_stage(bundle, name) for name in GPU_PLAN_STAGES[plan]}


def make_gpu_stage(bundle: Bundle, name: str) -> ModelProto:
    """Return one graph of a GPU plan, as `make_gpu_stages` does."""
    if name == "tail":
        parts = {part: make_gpu_stage(bundle, part) for part in TAIL_STAGES}
        features = [f"f{level}" for level in range(1, 6)]
        repaired = [f"r{level}k{size}" for level in (3, 4, 5) for size in (2, 4)]
        return merge_stages(parts, name, [*features, *repaired], ["reconstruction", *MAP_NAMES])
    model = load_model(bundle.stage_path(name))
    model.graph.name = name
    fold_constants(model)
    return cut_maps(model) if any(value.name == "map" for value in model.graph.output) else model


def cut_maps(model: ModelProto) -> ModelProto:
    """Return the model with am1, am2 and am3 in place of its output `map`, and without what made the map of them.

    The cut is found by structure: the sigmoid maps that reach `map` through additions, multiplications by one number
    and bilinear upsampling alone. Weights and upsampling have to be those of `kernels.fuse_maps.definition`.

    Raises:
        BundleError: the graph is not of that form.
    """
    shapes = find_shapes(model)
    terms = _find_terms(model, shapes)
    _check_terms(terms, shapes, model.graph.name)
    cut = ModelProto()
    cut.CopyFrom(model)
    rename_tensors(cut.graph, {term.tensor: name for term, name in zip(terms, MAP_NAMES, strict=True)})
    kept = [value for value in cut.graph.output if value.name != "map"]
    maps = [_describe_map(name, term, shapes, model) for term, name in zip(terms, MAP_NAMES, strict=True)]
    del cut.graph.output[:]
    cut.graph.output.extend([*kept, *maps])
    del cut.graph.value_info[:]
    remove_unused(cut)
    return cut


@dataclass(frozen=True, kw_only=True)
class Term:
    """One map of the weighted sum, and what happens to it on its way."""

    tensor: str
    weight: float = 1.0
    rows: NDArray[Any] | None = None  # multiplies the map from the left
    columns: NDArray[Any] | None = None  # multiplies it from the right
    is_resized: bool = False


def _find_terms(model: ModelProto, shapes: Mapping[str, tuple[int | None, ...]]) -> list[Term]:
    """Return the sigmoid maps that `map` is the weighted sum of, the largest first."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    terms: list[Term] = []
    waiting = [Term(tensor="map")]
    while waiting:
        term = waiting.pop()
        node = producers.get(term.tensor)
        if node is None:
            raise _unknown_form(model, f"'{term.tensor}' is no result of a sigmoid")
        if node.op_type == "Sigmoid":
            terms.append(term)
        else:
            waiting += _step_back(term, node, constants, model)
    return sorted(terms, key=lambda term: -_count_pixels(shapes.get(term.tensor, ())))


def _step_back(term: Term, node: NodeProto, constants: Mapping[str, TensorProto], model: ModelProto) -> list[Term]:
    """Return what a term is made of, one node earlier."""
    values = [name for name in node.input if name and name not in constants]
    numbers = [numpy_helper.to_array(constants[name]) for name in node.input if name in constants]
    if node.op_type in ("Add", "Sum") and not numbers:
        return [replace(term, tensor=name) for name in values]
    if node.op_type == "Mul" and len(values) == 1 and numbers[0].size == 1:
        return [replace(term, tensor=values[0], weight=term.weight * float(numbers[0].reshape(())))]
    if node.op_type == "MatMul" and len(values) == 1:
        side = "columns" if node.input[1] in constants else "rows"
        if getattr(term, side) is None and numbers[0].ndim == 2:
            matrix = numbers[0].astype(np.float64)
            return [replace(term, tensor=values[0], **{side: matrix.T if side == "columns" else matrix})]
    if node.op_type == "Resize" and _is_bilinear(node):
        return [replace(term, tensor=node.input[0], is_resized=True)]
    raise _unknown_form(model, f"a {node.op_type} node makes '{term.tensor}'")


def _is_bilinear(node: NodeProto) -> bool:
    """Tell whether a Resize node is plain bilinear interpolation with half-pixel centres."""
    found = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    words = {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
    return (
        words.get("mode") == "linear"
        and words.get("coordinate_transformation_mode", "half_pixel") in HALF_PIXEL_MODES
        and all(words.get(name, value) == value for name, value in RESIZE_DEFAULTS.items())
    )


def _check_terms(terms: Sequence[Term], shapes: Mapping[str, tuple[int | None, ...]], stage: str) -> None:
    """Compare weights and upsampling with `kernels.fuse_maps.definition`."""
    found = ", ".join(f"{term.weight:.4g} x {_describe_shape(shapes.get(term.tensor, ()))}" for term in terms)
    problem = f"its map is the sum of {found or 'nothing'}"
    if len(terms) != len(MAP_NAMES) or len({term.tensor for term in terms}) != len(terms):
        raise _unknown_form(stage, problem)
    full = shapes.get(terms[0].tensor, ())
    for level, (term, weight) in enumerate(zip(terms, MAP_WEIGHTS, strict=True)):
        shape = shapes.get(term.tensor, ())
        h, w = (size or 0 for size in full[2:]) if len(full) == 4 else (0, 0)
        if not h or shape[1:] != (1, h >> level, w >> level) or abs(term.weight - weight) > WEIGHT_TOLERANCE:
            raise _unknown_form(stage, problem)
        if not _is_upsampled_as_reference(term, level, h, w):
            raise _unknown_form(stage, f"its map of level {level + 1} is not upsampled bilinearly to {h} x {w}")


def _is_upsampled_as_reference(term: Term, level: int, h: int, w: int) -> bool:
    if level == 0 or term.is_resized:  # a resize to the full size of what has it already changes nothing
        return term.rows is None and term.columns is None
    for matrix, size in ((term.rows, h), (term.columns, w)):
        expected = upsample_bilinear(np.eye(size >> level)[None, None], size, size >> level)[0, 0]
        if matrix is None or matrix.shape != expected.shape or np.abs(matrix - expected).max() > WEIGHT_TOLERANCE:
            return False
    return True


def merge_stages(
    parts: Mapping[str, ModelProto], name: str, inputs: Sequence[str], outputs: Sequence[str]
) -> ModelProto:
    """Return stages that feed each other by name as one graph; every other tensor gets its stage's name in front.

    Args:
        parts: by name, in the order in which they run.
        name: of the merged graph.
        inputs: the merged graph's, in order.
        outputs: likewise.
    """
    values = {value.name: value for part in parts.values() for value in (*part.graph.output, *part.graph.input)}
    nodes: list[NodeProto] = []
    tensors: list[TensorProto] = []
    for prefix, part in parts.items():
        graph = onnx.GraphProto()
        graph.CopyFrom(part.graph)
        own = [tensor.name for tensor in graph.initializer] + [out for node in graph.node for out in node.output]
        rename_tensors(graph, {one: f"{prefix}/{one}" for one in own if one not in values})
        nodes += graph.node
        tensors += graph.initializer
    graph = helper.make_graph(nodes, name, [values[one] for one in inputs], [values[one] for one in outputs], tensors)
    first = next(iter(parts.values()))
    merged = helper.make_model(
        graph, opset_imports=list(first.opset_import), ir_version=first.ir_version, producer_name=first.producer_name
    )
    remove_unused(merged)
    return merged


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors of a graph other names, wherever they are made or read."""
    for node in graph.node:
        for which in (node.input, node.output):
            for index, name in enumerate(which):
                which[index] = names.get(name, name)
    for named in (*graph.initializer, *graph.output):
        named.name = names.get(named.name, named.name)


def _describe_map(
    name: str, term: Term, shapes: Mapping[str, tuple[int | None, ...]], model: ModelProto
) -> ValueInfoProto:
    image = next(value for value in model.graph.output if value.name == "map")
    batch = image.type.tensor_type.shape.dim[0]
    _, *sizes = shapes[term.tensor]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch.dim_param or batch.dim_value, *sizes])


def _count_pixels(shape: Iterable[int | None]) -> int:
    return int(np.prod([size or 1 for size in shape]))


def _describe_shape(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("n" if size is None else str(size) for size in shape) + "]"


def _unknown_form(model: ModelProto | str, problem: str) -> BundleError:
    name = model if isinstance(model, str) else model.graph.name
    weights = ", ".join(map(str, MAP_WEIGHTS))
    return BundleError(
        f"stage '{name}' cannot be cut for the GPU: {problem}; a sum of three sigmoid maps [n, 1, h, w], half and a "
        f"quarter of it, weighted by {weights} and upsampled bilinearly, is taken. Export the bundle again, or run it "
        "with device='cpu'."
    )

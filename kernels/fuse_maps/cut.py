"""fuse_maps taken off the end of a graph, whose output is then the three level maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ndp_rt.errors import BundleError
from ndp_rt.graphs.folding import find_shapes, remove_unused, rename_tensors
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, MAP_WEIGHTS, upsample_bilinear

WEIGHT_TOLERANCE = 1e-3  # of a map's weight and of an upsampling matrix, which may be stored in half precision
HALF_PIXEL_MODES = ("half_pixel", "pytorch_half_pixel")  # they differ for a target of one pixel alone
RESIZE_DEFAULTS = {"antialias": 0, "exclude_outside": 0, "keep_aspect_ratio_policy": "stretch"}


def cut(model: ModelProto, output: str) -> ModelProto:
    """Return the model with am1, am2 and am3 in place of `output`, and without what made the map of them.

    The cut is found by structure: the sigmoid maps that reach `output` through additions, multiplications by one number
    and bilinear upsampling alone. Weights and upsampling have to be those of definition.py.

    Raises:
        BundleError: the graph is not of that form.
    """
    shapes = find_shapes(model)
    terms = _find_terms(model, output, shapes)
    _check_terms(terms, shapes, model.graph.name)
    made = ModelProto()
    made.CopyFrom(model)
    rename_tensors(made.graph, {term.tensor: name for term, name in zip(terms, LEVEL_MAPS, strict=True)})
    kept = [value for value in made.graph.output if value.name != output]
    batch = next(value for value in model.graph.output if value.name == output).type.tensor_type.shape.dim[0]
    maps = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [batch.dim_param or batch.dim_value, *shapes[term.tensor][1:]]
        )
        for term, name in zip(terms, LEVEL_MAPS, strict=True)
    ]
    del made.graph.output[:]
    made.graph.output.extend([*kept, *maps])
    del made.graph.value_info[:]
    remove_unused(made)
    return made


@dataclass(frozen=True, kw_only=True)
class Term:
    """One map of the weighted sum, and what happens to it on its way."""

    tensor: str
    weight: float = 1.0
    rows: NDArray[Any] | None = None  # multiplies the map from the left
    columns: NDArray[Any] | None = None  # multiplies it from the right
    is_resized: bool = False


def _find_terms(model: ModelProto, output: str, shapes: Mapping[str, tuple[int | None, ...]]) -> list[Term]:
    """Return the sigmoid maps that `output` is the weighted sum of, the largest first."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    terms: list[Term] = []
    waiting = [Term(tensor=output)]
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
    """Compare weights and upsampling with the definition."""
    found = ", ".join(f"{term.weight:.4g} x {_describe_shape(shapes.get(term.tensor, ()))}" for term in terms)
    problem = f"its map is the sum of {found or 'nothing'}"
    if len(terms) != len(LEVEL_MAPS) or len({term.tensor for term in terms}) != len(terms):
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


def _count_pixels(shape: Iterable[int | None]) -> int:
    return int(np.prod([size or 1 for size in shape]))


def _describe_shape(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("n" if size is None else str(size) for size in shape) + "]"


def _unknown_form(model: ModelProto | str, problem: str) -> BundleError:
    name = model if isinstance(model, str) else model.graph.name
    weights = ", ".join(map(str, MAP_WEIGHTS))
    return BundleError(
        f"stage '{name}' cannot be cut for the GPU: {problem}; expected a sum of three sigmoid maps [n, 1, h, w], half "
        f"and a quarter of it, weighted by {weights} and upsampled bilinearly. Export the bundle again, or run it with "
        "device='cpu'."
    )

"""Simplifies ONNX graphs without changing what they compute: folds constants, drops unused parts, fixes the batch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ndp_rt.bundle.open import is_plain_name
from ndp_rt.errors import BundleError, EngineError

MAX_ROUNDS = 64  # of fixing shapes: each round folds at least one Shape node
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
MOST_SHAPE_VALUES = 64  # of a tensor of floats that shapes depend on, such as Resize's scales


def load_model(path: Path) -> ModelProto:
    """Read an ONNX file and its weights, which may be in other files of its folder.

    Raises:
        BundleError: it, or a file of its weights, cannot be read.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        _read_weights(model, path.parent)
        return model
    except (OSError, ValueError, KeyError, DecodeError) as error:
        raise BundleError(f"{path}: cannot be read as ONNX ({error}). Export the bundle again.") from error


def _read_weights(model: ModelProto, folder: Path) -> None:
    """Put the data of external initializers, and of Constant nodes, into the model.

    onnx's own function (1.23) refuses a file with a second name (a hard link), as backups and deduplicated storage
    make it.
    """
    constants = (attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t"))
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not is_plain_name(place["location"]):
            raise ValueError(f"'{tensor.name}': expected a file in the same folder, got {place['location']!r}")
        with (folder / place["location"]).open("rb") as stream:
            stream.seek(int(place.get("offset", 0)))
            wanted = int(place["length"]) if "length" in place else -1
            tensor.raw_data = stream.read(wanted)
        if wanted not in (-1, len(tensor.raw_data)):
            raise ValueError(f"'{tensor.name}': expected {wanted} bytes, got {len(tensor.raw_data)}")
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def find_readers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each tensor, by its name."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def set_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    """Replace the nodes of a model, which may be among the new ones."""
    copies = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(copies)


def remove_unused(model: ModelProto) -> None:
    """Remove nodes and initializers that no output depends on."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(list(graph.node)):  # nodes come in topological order
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    set_nodes(model, reversed(kept))
    for place in reversed(range(len(graph.initializer))):  # those that stay are not copied
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]


def fold_constants(model: ModelProto) -> None:
    """Replace every tensor that depends on no input by an initializer, computed in the graph's own types.

    So tensors made from weights or a reference (casts, transposed matrices, the patches of the reference and their
    norms) are computed once, here, and not by every engine in its own precision.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    folded: list[NodeProto] = []
    kept: list[NodeProto] = []
    for node in graph.node:
        is_constant = all(not name or name in constants for name in node.input) and not outputs & set(node.output)
        (folded if is_constant else kept).append(node)
        if is_constant:
            constants.update(node.output)
    made = {name for node in folded for name in node.output}
    wanted = list(dict.fromkeys(name for node in kept for name in node.input if name in made))
    if wanted:
        graph.initializer.extend(_evaluate(model, folded, wanted))
    set_nodes(model, kept)
    remove_unused(model)


def _evaluate(model: ModelProto, nodes: Sequence[NodeProto], names: Sequence[str]) -> list[onnx.TensorProto]:
    """Run nodes that need no input and return the named tensors."""
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    results = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(list(nodes), "constants", [], results, tensors)
    part = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    values = ReferenceEvaluator(part).run(None, {})
    return [
        numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        for name, value in zip(names, values, strict=True)
    ]


def fix_batch(model: ModelProto, count: int) -> None:
    """Give every input a batch of `count` and fold what the graph computes of its own shapes.

    Raises:
        EngineError: a shape depends on more than the batch.
    """
    graph = model.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = count
    fold_constants(model)
    for _ in range(MAX_ROUNDS):
        waiting = [node for node in graph.node if node.op_type == "Shape"]
        if not waiting:
            return
        sizes = find_shapes(model)
        known = {
            node.output[0]: sizes[node.input[0]] for node in waiting if None not in sizes.get(node.input[0], (None,))
        }
        if not known:
            break
        set_nodes(
            model, [_freeze(node, known[node.output[0]]) if node.output[0] in known else node for node in graph.node]
        )
        fold_constants(model)
    raise EngineError(
        f"stage '{graph.name}': expected shapes that follow from a batch of {count}, got another for "
        f"{waiting[0].input[0]}. Export the bundle again."
    )


def find_shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of every tensor whose rank is known; None stands for a size that is not.

    Raises:
        EngineError: shapes or types contradict each other.
    """
    inferred = infer(model).graph
    shapes = {tensor.name: tuple(int(size) for size in tensor.dims) for tensor in inferred.initializer}
    found: dict[str, tuple[int | None, ...]] = dict(shapes)
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(int(dim.dim_value) if dim.HasField("dim_value") else None for dim in dims)
    return found


def infer(model: ModelProto) -> ModelProto:
    """Return the model with the type, and as far as known the shape, of every tensor, and without its weights.

    Raises:
        EngineError: shapes or types contradict each other.
    """
    try:
        light = _leave_out_weights(model)
        return onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"stage '{model.graph.name}': its shapes or types contradict each other: {reason}") from error


def _leave_out_weights(model: ModelProto) -> ModelProto:
    """Return a copy whose large initializers have a type and a shape alone: other shapes follow from small values."""
    light = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = light.graph
    graph.name = model.graph.name
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, name).extend(getattr(model.graph, name))
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS and math.prod(tensor.dims) > MOST_SHAPE_VALUES:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            graph.initializer.append(tensor)
    return light


def _freeze(node: NodeProto, sizes: tuple[int | None, ...]) -> NodeProto:
    """Return a Shape node's result as a Constant node."""
    limits = {attribute.name: int(attribute.i) for attribute in node.attribute}
    value = np.asarray(sizes[limits.get("start", 0) : limits.get("end", len(sizes))], np.int64)
    return helper.make_node("Constant", [], list(node.output), name=node.name, value=numpy_helper.from_array(value))


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors of a graph other names, wherever they are made or read."""
    for node in graph.node:
        for which in (node.input, node.output):
            for index, name in enumerate(which):
                which[index] = names.get(name, name)
    for named in (*graph.initializer, *graph.input, *graph.output):
        named.name = names.get(named.name, named.name)

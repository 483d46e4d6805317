"""Stages to ONNX graphs: traced, cleaned, with exact names; the same model gives the same bytes every time."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, TensorShapeProto, helper, numpy_helper

from ndp_rt.export.stages import Stage
from ndp_rt.graphs.folding import remove_unused, set_nodes

OPSET = 17
IR_VERSION = 8  # the one that opset 17 came with; older runtimes read it
BATCH_AXIS = "n"
TRACE_BATCH = 2  # not 1, which some operators treat as a broadcast axis while they are traced


def trace_stage(stage: Stage) -> ModelProto:
    """Return a stage as an ONNX model with a dynamic batch axis; weights are inside, under the module's names."""
    inputs = tuple(torch.zeros(spec.with_batch(TRACE_BATCH)) for spec in stage.inputs)
    names = [[spec.name for spec in specs] for specs in (stage.inputs, stage.outputs)]
    with tempfile.TemporaryDirectory(prefix="ndp-rt-trace-") as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "stage.onnx"
        # The TorchScript exporter is deprecated since torch 2.9. It stays here as long as the other one can't write
        # opset 17 and folds reference-derived constants away, so that `reference_3` would no longer be in the graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            stage.module,
            inputs,
            path,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,
            input_names=names[0],
            output_names=names[1],
            dynamic_axes={name: {0: BATCH_AXIS} for name in (*names[0], *names[1])},
        )
        model = onnx.load(path)
    return clean_graph(model, stage)


def clean_graph(model: ModelProto, stage: Stage) -> ModelProto:
    """Return the model without what a tracer leaves behind: aliases, unused tensors, notes, names of its own."""
    graph = model.graph
    remove_aliases(model)
    fold_constants(model)
    remove_unused(model)
    graph.name = stage.name
    graph.doc_string = ""
    del graph.value_info[:]
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for values, specs in ((graph.input, stage.inputs), (graph.output, stage.outputs)):
        del values[:]
        for spec in specs:
            shape = [BATCH_AXIS if size is None else size for size in spec.shape]
            values.append(helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, shape))
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ndp-rt",
    )


def remove_aliases(model: ModelProto) -> None:
    """Remove Identity nodes whose input is an initializer; their readers read the initializer."""
    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    aliases = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in initializers and node.output[0] not in outputs
    }
    kept = [node for node in graph.node if not (node.op_type == "Identity" and node.output[0] in aliases)]
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
    set_nodes(model, kept)


def fold_constants(model: ModelProto) -> None:
    """Replace each Cast and Concat of constants, which the tracer writes for Python numbers, by its result."""
    constants: dict[str, NDArray[Any]] = {}
    nodes = []
    for node in model.graph.node:
        folds = node.op_type in ("Cast", "Concat") and all(name in constants for name in node.input)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif folds:
            values = [constants[name] for name in node.input]
            result = (
                values[0].astype(helper.tensor_dtype_to_np_dtype(node.attribute[0].i))
                if node.op_type == "Cast"
                else np.concatenate(values, axis=node.attribute[0].i)
            )
            constants[node.output[0]] = result
            tensor = numpy_helper.from_array(result)
            node = helper.make_node("Constant", [], list(node.output), name=node.name, value=tensor)
        nodes.append(node)
    set_nodes(model, nodes)


def duplicate_shared_biases(model: ModelProto) -> None:
    """Give every convolution a bias of its own, where the two passes of the encoder share one.

    OpenVINO 2026.4 fuses a bias, and the ReLU after it, into a convolution only if nothing else reads the bias.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, int] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.input) < 3 or node.input[2] not in initializers:
            continue
        name = node.input[2]
        readers[name] = readers.get(name, 0) + 1
        if readers[name] > 1:
            copy = TensorProto()
            copy.CopyFrom(initializers[name])
            copy.name = f"{name}_{readers[name]}"
            graph.initializer.append(copy)
            node.input[2] = copy.name


def store_as_half(model: ModelProto) -> None:
    """Store float32 initializers of two axes or more as float16, each with a Cast back to float32.

    The arithmetic stays float32. Lossless where the values are float16 numbers already (`stages.round_to_half`).
    """
    graph = model.graph
    casts, renamed = [], {}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        renamed[tensor.name] = f"{tensor.name}_float32"
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), tensor.name))
        cast = helper.make_node("Cast", [tensor.name], [renamed[tensor.name]], to=TensorProto.FLOAT)
        cast.name = f"{tensor.name}_cast"
        casts.append(cast)
    nodes = list(graph.node)
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    set_nodes(model, [*casts, *nodes])


def count_operators(model: ModelProto) -> dict[str, int]:
    """Return how often each operator occurs, by name."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def tensor_dims(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
    """Return the dims of a graph's inputs or outputs by name, the batch axis as "n"."""
    return {value.name: [_dim(dim) for dim in value.type.tensor_type.shape.dim] for value in values}


def _dim(dim: TensorShapeProto.Dimension) -> str | int:
    return str(dim.dim_param) if dim.dim_param else int(dim.dim_value)

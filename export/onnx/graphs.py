"""Stages to ONNX graphs: traced, cleaned, with exact names; the same model gives the same bytes every time."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

from ndp_rt.export.models.family import Stage
from ndp_rt.files import make_temporary_folder
from ndp_rt.graphs.folding import remove_unused, rename_tensors, set_nodes

OPSET = 17
IR_VERSION = 8  # the one that opset 17 came with; older runtimes read it
BATCH_AXIS = "n"
TRACE_BATCH = 2  # not 1, which some operators treat as a broadcast axis while they are traced


def trace_stage(stage: Stage) -> ModelProto:
    """Return a stage as an ONNX model with a dynamic batch axis; weights are inside, under the module's names."""
    inputs = tuple(torch.zeros(spec.with_batch(TRACE_BATCH)) for spec in stage.inputs)
    names = [[spec.name for spec in specs] for specs in (stage.inputs, stage.outputs)]
    with make_temporary_folder("trace") as folder, warnings.catch_warnings(), torch.no_grad():
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
    set_nodes(model, [n for n in graph.node if not (n.op_type == "Identity" and n.output[0] in aliases)])
    rename_tensors(graph, aliases)


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


def round_to_half(module: nn.Module) -> None:
    """Round every parameter and buffer of two axes or more to float16 values, in place, still as float32."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim >= 2:
                tensor.copy_(tensor.half().float())


def store_as_half(model: ModelProto) -> None:
    """Store float32 initializers of two axes or more as float16, each with a Cast back to float32.

    The arithmetic stays float32. Lossless where the values are float16 numbers already (`round_to_half`).
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

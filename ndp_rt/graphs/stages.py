"""The graphs of a bundle's stages: read from its files, merged, and cut where an op of ours does the rest."""

from collections.abc import Mapping, Sequence
from typing import cast

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from ndp_rt.bundle import Bundle
from ndp_rt.errors import BundleError
from ndp_rt.graphs.folding import fold_constants, load_model, remove_unused, rename_tensors
from ndp_rt.kernels.op import CuttingOp
from ndp_rt.kernels.registry import find_op


def make_stages(bundle: Bundle, plan: str) -> dict[str, ModelProto]:
    """Return the graphs of a GPU's program by name, in float32, with all weights inside and constants folded.

    Args:
        plan: the name of one of its programs for a GPU.

    Raises:
        InputError: it has no such program.
        BundleError: a stage cannot be read, or does not end in the op that is to be cut off.
    """
    _, program = bundle.manifest.find_program("cuda", plan)
    return {name: make_stage(bundle, name) for name in program.stages}


def make_stage(bundle: Bundle, name: str) -> ModelProto:
    """Return the graph of one stage, as `make_stages` does."""
    stage = bundle.stage(name)
    if stage.file is not None:
        model = load_model(bundle.path / stage.file)
        model.graph.name = name
        fold_constants(model)
        return model
    parts = {part: make_stage(bundle, part) for part in stage.parts}
    last = stage.parts[-1]
    if stage.cut is not None:
        parts[last] = _cut(bundle, name, parts[last])
    if len(parts) > 1:
        return merge_stages(parts, name, list(stage.inputs), list(stage.outputs))
    parts[last].graph.name = name
    return parts[last]


def _cut(bundle: Bundle, name: str, model: ModelProto) -> ModelProto:
    """Return a graph without the op at its end that makes what the stage does not give."""
    stage = bundle.stage(name)
    op = find_op(stage.cut or "")
    ends = [value.name for value in model.graph.output if value.name not in stage.outputs]
    if len(ends) != 1 or not isinstance(op, CuttingOp):
        raise BundleError(
            f"{bundle.path}: stage '{name}': expected one output that op {stage.cut} makes and that can be cut off, "
            f"got {', '.join(ends) or 'none'}. Export the bundle again."
        )
    return cast(ModelProto, op.cut(model, ends[0]))


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

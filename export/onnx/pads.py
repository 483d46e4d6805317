"""Merges a Pad with zeros into the convolution that reads it."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ndp_rt.graphs.folding import fold_constants, remove_unused, set_nodes


def merge_pads(model: ModelProto) -> None:
    """Give each convolution the padding of the Pad with zeros before it, in place; exact.

    Runtimes have convolutions that pad each side by itself, and few of them look for a Pad of its own.
    """
    fold_constants(model)  # a tracer computes the pads from constants
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pads = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Pad" and node.input[1] in constants and _fills_with_zeros(node, constants)
    }
    nodes = []
    for node in graph.node:
        pad = pads.get(node.input[0]) if node.op_type == "Conv" else None
        if pad is not None:
            before = constants[pad.input[1]]  # of n, c, h, w: first before, then after each
            if not before[[0, 1, 4, 5]].any():
                kept = [attribute for attribute in node.attribute if attribute.name != "pads"]
                own = next((list(one.ints) for one in node.attribute if one.name == "pads"), [0, 0, 0, 0])
                added = before[[2, 3, 6, 7]].tolist()
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.append(helper.make_attribute("pads", [a + b for a, b in zip(own, added, strict=True)]))
                node.input[0] = pad.input[0]
        nodes.append(node)
    set_nodes(model, nodes)
    remove_unused(model)


def _fills_with_zeros(node: NodeProto, constants: Mapping[str, NDArray[Any]]) -> bool:
    mode = next((one.s for one in node.attribute if one.name == "mode"), b"constant")
    given = node.input[2] if len(node.input) > 2 else ""
    is_zero = not given or (given in constants and not constants[given].any())
    return mode == b"constant" and is_zero

"""The known end of a model's results: normalised around a threshold, and clipped."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

AFFINE = ("Add", "Sub", "Mul", "Div")
CLIPPING = ("Clip", "Min", "Max")
PASSED = ("Identity", "Where")


def find_tail(model: ModelProto, result: str) -> tuple[str, list[str]]:
    """Return what a result was before arithmetic with constants and clipping, and these steps in words, the last first.

    Such as anomalib's `clip((x - threshold) / (max - min) + 0.5, 0, 1)`: images far beyond the range that its training
    saw get the same score. A choice whose condition is a constant, such as whether there is a range, is passed through.
    Where nothing clips there is nothing to undo, and the result itself is returned.

    Args:
        model: its constants folded.
        result: the name of an output.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    steps: list[str] = []
    name, clips = result, False
    while name in makers:
        node = makers[name]
        source = _find_source(node, constants)
        if source is None:
            break
        clips = clips or node.op_type in CLIPPING
        if node.op_type not in PASSED:
            steps.append(_describe(node, constants))
        name = source
    return (name, steps) if clips else (result, [])


def _find_source(node: NodeProto, constants: Mapping[str, np.ndarray]) -> str | None:
    """Return the one input of a node of a tail that is no constant of one value, or None for any other node."""
    if node.op_type == "Where":
        condition = constants.get(node.input[0])
        return None if condition is None or condition.size != 1 else node.input[1 if condition.item() else 2]
    if node.op_type not in (*AFFINE, *CLIPPING, *PASSED):
        return None
    open_inputs = [name for name in node.input if name and not (name in constants and constants[name].size == 1)]
    is_turned = node.op_type in ("Sub", "Div") and node.input[0] in constants  # c - x falls where x rises, and -2 x too
    factors = [constants[name] for name in node.input if name in constants] if node.op_type in ("Mul", "Div") else []
    is_turned = is_turned or any(factor.size == 1 and not factor.item() > 0 for factor in factors)
    return open_inputs[0] if len(open_inputs) == 1 and not is_turned else None


def _describe(node: NodeProto, constants: Mapping[str, np.ndarray]) -> str:
    values = [f"{constants[name].item():.6g}" for name in node.input if name in constants]
    values += [f"{attribute.f:.6g}" for attribute in node.attribute if attribute.name in ("min", "max")]
    return f"{node.op_type.lower()} {' to '.join(values)}".rstrip()

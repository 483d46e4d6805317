"""Makes ONNX graphs of one product each, to measure how fast a backend can multiply and add."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ndp_rt.errors import InputError

OPSET, IR_VERSION = 17, 8  # those of a bundle's graphs
BATCH_AXIS = "n"  # the first axis of input and output, as in a bundle's graphs
INPUT, OUTPUT = "x", "y"


def make_product(weights: NDArray[np.float32]) -> ModelProto:
    """Return `y` [n, m] = `x` [n, k] times a constant.

    Args:
        weights: float32 [k, m].
    """
    _check(weights, 2)
    k, m = weights.shape
    return _make_model("product", "MatMul", weights, (k,), (m,))


def make_convolution(weights: NDArray[np.float32], height: int, width: int) -> ModelProto:
    """Return `y` [n, m, h, w] = `x` [n, k, h, w] convolved with a constant, edges padded with zeros.

    Args:
        weights: float32 [m, k, s, s], s odd.
        height: h.
        width: w.
    """
    _check(weights, 4)
    m, k, side = weights.shape[:3]
    return _make_model("convolution", "Conv", weights, (k, height, width), (m, height, width), pads=[side // 2] * 4)


def _check(weights: NDArray[np.float32], axis_count: int) -> None:
    if weights.dtype != np.float32 or weights.ndim != axis_count:
        raise InputError(f"weights: expected float32 of {axis_count} axes, got {weights.dtype} {list(weights.shape)}.")


def _make_model(
    name: str,
    operator: str,
    weights: NDArray[np.float32],
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    **attributes: Sequence[int],
) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node(operator, [INPUT, "weights"], [OUTPUT], name=name, **attributes)],
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH_AXIS, *in_shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH_AXIS, *out_shape])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

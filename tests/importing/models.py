"""Small ONNX models of other programs, written as text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

SIDE = 32


def write_model(
    path: Path,
    body: str,
    outputs: str,
    *,
    image: str = "float[N,3,32,32] input",
    opset: int = 17,
    channels: int = 3,
    extra_opset: str = "",
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Write a model with weights `w` [4, channels, 3, 3], from its nodes and outputs in ONNX's text form."""
    ir_version = 10 if opset > 18 else 8
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{extra_opset}]>'
    model = parser.parse_model(f"{head}\nmodel ({image}) => ({outputs}) {{\n{body}\n}}")
    weights = np.random.default_rng(7).normal(size=(4, channels, 3, 3))
    model.graph.initializer.append(numpy_helper.from_array(weights.astype(helper.tensor_dtype_to_np_dtype(kind)), "w"))
    onnx.save(model, path)
    return path


# A map of the features' size at every pixel.
RAW = """
  f = Conv <pads = [1, 1, 1, 1]> (input, w)
  squares = Mul(f, f)
  channel = Constant <value = int64[1] {1}> ()
  sums = ReduceSum(squares, channel)
  raw = Sqrt(sums)
"""
MAP = RAW + "  anomaly_map = Identity(raw)\n"
PEAK = "  peak = ReduceMax <axes = [1, 2, 3], keepdims = 0> (raw)\n"
MAP_OUTPUT = "float[N,1,32,32] anomaly_map"
# What anomalib's exports end in: threshold, range and clip.
NORMALISED = (
    RAW
    + PEAK
    + """
  thr = Constant <value = float {3.0}> ()
  span = Constant <value = float {8.0}> ()
  half = Constant <value = float {0.5}> ()
  zero = Constant <value = float {0.0}> ()
  one = Constant <value = float {1.0}> ()
  a = Sub(raw, thr)
  b = Div(a, span)
  c = Add(b, half)
  d = Min(c, one)
  e = Max(d, zero)
  has_range = Less(zero, span)
  anomaly_map = Where(has_range, e, raw)
  a2 = Sub(peak, thr)
  b2 = Div(a2, span)
  c2 = Add(b2, half)
  d2 = Min(c2, one)
  pred_score = Max(d2, zero)
  pred_label = Greater(pred_score, half)
  pred_mask = Greater(anomaly_map, half)
"""
)
ANOMALIB_OUTPUTS = "float[N,1,32,32] anomaly_map, float[N] pred_score, bool[N] pred_label, bool[N,1,32,32] pred_mask"


def compute_raw(images: np.ndarray, channels: int = 3) -> np.ndarray:
    """Return the maps [n, 1, h, w] of RAW for its own input [n, c, h, w], in float64."""
    weights = np.random.default_rng(7).normal(size=(4, channels, 3, 3)).astype(np.float32).astype(np.float64)
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # [n, c, h, w, 3, 3]
    features = np.einsum("nchwij,ocij->nohw", windows, weights)
    return np.sqrt((features**2).sum(axis=1, keepdims=True))


def make_loop(path: Path, op: str) -> Path:
    """Write a model with a control-flow node of one branch."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
    )
    nodes: Sequence[onnx.NodeProto] = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("Identity", ["input"], ["x"]),
        helper.make_node(op, ["yes"], ["z"], name="decide", then_branch=body, else_branch=body),
        helper.make_node("ReduceMax", ["z"], ["anomaly_map"], axes=[1], keepdims=1),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])
    graph = helper.make_graph(list(nodes), "g", [image], [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path

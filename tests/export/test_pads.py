"""Pads become attributes of the convolutions that read them."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ndp_rt.export.onnx.pads import merge_pads


def make_model(
    pads: list[int], *, mode: str = "constant", value: float = 0.0, own: tuple[int, ...] = (0, 0, 0, 0)
) -> ModelProto:
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(np.array(pads, np.int64), "pads"),
        numpy_helper.from_array(np.array(value, np.float32), "value"),
        numpy_helper.from_array(rng.normal(size=(2, 3, 3, 3)).astype(np.float32), "weight"),
    ]
    nodes = [
        helper.make_node("Pad", ["x", "pads", "value"], ["padded"], mode=mode),
        helper.make_node("Conv", ["padded", "weight"], ["y"], strides=[2, 2], pads=list(own)),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "one", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def count_pads(model: ModelProto) -> int:
    return sum(node.op_type == "Pad" for node in model.graph.node)


@pytest.mark.parametrize("own", [(0, 0, 0, 0), (1, 0, 2, 1)])
def test_a_pad_with_zeros_is_merged_and_changes_nothing(own: tuple[int, ...], rng: np.random.Generator) -> None:
    model = make_model([0, 0, 1, 0, 0, 0, 2, 3], own=own)
    x = rng.normal(size=(1, 3, 8, 6)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    merge_pads(model)
    assert count_pads(model) == 0
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "model",
    [
        make_model([0, 0, 0, 0, 0, 0, 1, 1], value=0.5),
        make_model([0, 0, 0, 0, 0, 0, 1, 1], mode="reflect"),
        make_model([0, 0, 0, 0, 1, 0, 1, 1]),
    ],
    ids=["another value", "reflected", "another axis"],
)
def test_another_pad_stays(model: ModelProto) -> None:
    merge_pads(model)
    assert count_pads(model) == 1

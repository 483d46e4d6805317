"""The walk over ONNX files finds the same external locations as the onnx package."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.errors import InputError


def make_external(name: str, location: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="64")
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_finds_locations_wherever_a_tensor_can_be() -> None:
    inner = helper.make_graph([], "inner", [], [], [make_external("d", "in-subgraph")])
    nodes = [
        helper.make_node("Constant", [], ["a"], value=make_external("a", "in-attribute")),
        helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner),
    ]
    graph = helper.make_graph(nodes, "outer", [], [], [make_external("c", "in-initializer")])
    graph.sparse_initializer.add(values=make_external("v", "in-values"), indices=make_external("i", "in-indices"))
    function = helper.make_function("own", "f", [], ["a"], nodes[:1], [helper.make_opsetid("", 17)])
    function.node[0].attribute[0].t.external_data[1].value = "in-function"
    model = helper.make_model(graph, functions=[function])
    assert list_external_locations(model.SerializeToString()) == {
        "in-attribute",
        "in-subgraph",
        "in-initializer",
        "in-values",
        "in-indices",
        "in-function",
    }


def test_tensors_inside_the_file_have_no_location() -> None:
    tensor = onnx.numpy_helper.from_array(np.arange(5, dtype=np.float32), "a")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    assert list_external_locations(model.SerializeToString()) == set()


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_an_input_error(data: bytes) -> None:
    try:
        list_external_locations(data)
    except InputError:
        return


def test_graphs_nested_without_end_are_refused() -> None:
    graph = b""
    for _ in range(200):  # graph -> node (1) -> attribute (5) -> graph (6)
        for field in (6, 5, 1):
            length, number = len(graph), bytearray()
            while length > 0x7F:
                number.append(length & 0x7F | 0x80)
                length >>= 7
            graph = bytes([field << 3 | 2, *number, length]) + graph
    data = bytearray()
    length = len(graph)
    while length > 0x7F:
        data.append(length & 0x7F | 0x80)
        length >>= 7
    with pytest.raises(InputError, match="nested"):
        list_external_locations(bytes([7 << 3 | 2, *data, length]) + graph)

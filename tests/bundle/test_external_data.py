"""The walk over ONNX files finds the same external locations as the onnx package."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ndp_rt.bundle.external_data import FIELDS, list_external_locations
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


def test_finds_locations_in_default_attributes_of_functions_and_in_training() -> None:
    function = helper.make_function("own", "f", [], ["a"], [], [helper.make_opsetid("", 17)])
    function.attribute_proto.add(name="x", type=onnx.AttributeProto.TENSOR).t.CopyFrom(make_external("t", "in-default"))
    inner = helper.make_graph([], "inner", [], [], [make_external("d", "in-graph")])
    function.attribute_proto.add(name="y", type=onnx.AttributeProto.GRAPHS).graphs.add().CopyFrom(inner)
    model = helper.make_model(helper.make_graph([], "outer", [], []), functions=[function])
    training = model.training_info.add()
    training.initialization.initializer.append(make_external("i", "in-initialization"))
    training.algorithm.initializer.append(make_external("a", "in-algorithm"))
    wanted = {"in-default", "in-graph", "in-initialization", "in-algorithm"}
    assert list_external_locations(model.SerializeToString()) == wanted


def test_every_field_of_onnx_that_leads_to_a_tensor_is_walked() -> None:
    names = {
        "ModelProto": "model",
        "TrainingInfoProto": "training",
        "FunctionProto": "function",
        "GraphProto": "graph",
        "NodeProto": "node",
        "AttributeProto": "attribute",
        "SparseTensorProto": "sparse",
        "TensorProto": "tensor",
    }
    messages = onnx.ModelProto.DESCRIPTOR.file.message_types_by_name
    wanted = {
        names[name]: {
            field.number: names[field.message_type.name]
            for field in messages[name].fields
            if field.message_type is not None and field.message_type.name in names
        }
        for name in names
    }
    wanted["tensor"] = {messages["TensorProto"].fields_by_name["external_data"].number: "entry"}
    assert wanted == FIELDS


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

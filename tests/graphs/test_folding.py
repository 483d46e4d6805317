"""Graphs are made simpler and compute the same."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ndp_rt.bundle import Bundle
from ndp_rt.errors import BundleError, EngineError
from ndp_rt.graphs.folding import find_shapes, fix_batch, fold_constants, load_model


def make_model(nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], sides: tuple[object, ...]) -> ModelProto:
    """Return a model from x to y, both float32 of `sides`."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(sides)) for name in ("x", "y")]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "part", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def test_what_derives_from_constants_becomes_a_constant(rng: np.random.Generator) -> None:
    weight = rng.normal(size=(3, 4)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["turned"], perm=[1, 0]),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Mul", ["turned", "two"], ["doubled"]),
        helper.make_node("Transpose", ["wide"], ["unused"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "doubled"], ["y"]),
    ]
    model = make_model(nodes, {"w": weight}, ("n", 4))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    x = rng.normal(size=(2, 4)).astype(np.float32)
    expected = run(model, x)
    fold_constants(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["doubled"]
    assert (run(model, x) == expected).all()


def test_scalars_stay_scalars() -> None:
    nodes = [helper.make_node("Constant", [], ["c"], value_float=0.2), helper.make_node("Mul", ["x", "c"], ["y"])]
    model = make_model(nodes, {}, ("n", 4))
    fold_constants(model)
    assert list(model.graph.initializer[0].dims) == []


def test_shapes_fold_once_the_batch_is_known(rng: np.random.Generator) -> None:
    """[n, 4, 6] to [n, 24] and back, with sizes that the graph asks its own tensors for."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "zero"], ["count"], axis=0),
        helper.make_node("Concat", ["count", "minus"], ["flat_sizes"], axis=0),
        helper.make_node("Reshape", ["x", "flat_sizes"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["positive"]),
        helper.make_node("Shape", ["positive"], ["half"], start=0, end=1),
        helper.make_node("Concat", ["half", "rest"], ["full_sizes"], axis=0),
        helper.make_node("Reshape", ["positive", "full_sizes"], ["y"]),
    ]
    tensors = {"zero": np.int64([0]), "minus": np.int64([-1]), "rest": np.int64([4, 6])}
    model = make_model(nodes, tensors, ("n", 4, 6))
    x = rng.normal(size=(3, 4, 6)).astype(np.float32)
    expected = run(model, x)
    fix_batch(model, 3)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Relu", "Reshape"]
    assert find_shapes(model)["flat"] == (3, 24)
    assert (run(model, x) == expected).all()


def test_a_shape_that_depends_on_data_is_refused() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Shape", ["places"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["wide"], ["total"], keepdims=0),
        helper.make_node("Mul", ["x", "total"], ["y"]),
    ]
    with pytest.raises(EngineError, match="shapes that follow from a batch of 2, got another for places"):
        fix_batch(make_model(nodes, {}, ("n", 4)), 2)


def test_weights_that_are_gone_are_named(own_bundle: Bundle) -> None:
    (own_bundle.path / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"encoder\.onnx: cannot be read"):
        load_model(own_bundle.stage_path("encoder"))
    Path(own_bundle.path / "head.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(BundleError, match=r"head\.onnx: cannot be read as ONNX"):
        load_model(own_bundle.stage_path("head"))


def test_weights_whose_file_has_a_second_name_are_read(own_bundle: Bundle, tmp_path: Path) -> None:
    path = own_bundle.stage_path("fused")
    before = load_model(path)
    os.link(own_bundle.path / "weights.bin", tmp_path / "backup.bin")
    assert load_model(path) == before
    assert not any(tensor.external_data for tensor in before.graph.initializer)


def test_weights_that_are_cut_short_or_lie_elsewhere_are_refused(own_bundle: Bundle) -> None:
    path = own_bundle.stage_path("fused")
    weights = own_bundle.path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(BundleError, match=r"cannot be read as ONNX \('.*': expected \d+ bytes, got \d+\)"):
        load_model(path)
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"../ghts.bin"))
    with pytest.raises(BundleError, match=r"expected a file in the same folder, got '../ghts.bin'"):
        load_model(path)

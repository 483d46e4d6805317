"""Any ONNX file as a rival: which inputs are taken, what its outputs become, and what it is compared with."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ndp_rt.bench.rivals import onnx_file
from ndp_rt.bench.rivals.base import Check, OpenRival, open_checked
from ndp_rt.bench.rivals.onnx_file import OnnxFileRival
from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.kernels.preprocess.definition import preprocess
from tests.tiny_bundle import SIDE
from tests.tolerances import assert_close

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
NCHW: tuple[Any, ...] = ("n", 3, "h", "w")


@pytest.fixture
def tiny(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle, verify=False)


def write_model(
    path: Path,
    nodes: Sequence[Any],
    shape: Sequence[Any] = NCHW,
    *,
    kind: int = FLOAT,
    output: tuple[str, int] = ("y", FLOAT),
    more_inputs: Sequence[Any] = (),
    weights: Sequence[Any] = (),
) -> Path:
    """Write a graph from x to an output of any shape."""
    inputs = [helper.make_tensor_value_info("x", kind, shape), *more_inputs]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(*output, None)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def write_mean(path: Path, shape: Sequence[Any] = NCHW, kind: int = FLOAT, axis: int = 1, keep: int = 1) -> Path:
    """Write a graph whose map is the mean of the channels."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["y"], axes=[axis], keepdims=keep),
    ]
    return write_model(path, nodes, shape, kind=kind)


def open_file(tiny: Bundle, path: Path, batch: int = 2) -> tuple[OpenRival, Check]:
    return open_checked(OnnxFileRival(path), tiny, "fp32", batch, threads=1)


def make_images(rng: np.random.Generator, count: int) -> list[Any]:
    return list(rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8))


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize(
    ("shape", "kind", "axis"),
    [
        (NCHW, FLOAT, 1),
        ((2, 3, SIDE, SIDE), FLOAT, 1),
        (("n", "h", "w", 3), UINT8, 3),
        ((None, 3, None, None), UINT8, 1),
    ],
)
def test_a_map_is_returned_whatever_the_input_looks_like(
    tiny: Bundle, tmp_path: Path, rng: np.random.Generator, shape: Sequence[Any], kind: int, axis: int, keep: int
) -> None:
    path = write_mean(tmp_path / "m.onnx", shape, kind, axis, keep if axis == 1 else 0)
    runner, check = open_file(tiny, path)
    assert check.against.startswith("the same file in OpenVINO 20") and check.allowed is not None
    assert check.map_max_abs_difference <= check.allowed and check.image_count == 2
    images = make_images(rng, 2)
    maps, scores = runner.run(images)
    expected = np.stack(images).mean(axis=3, dtype=np.float64)[:, None] / (255 if kind == FLOAT else 1)
    assert_close(maps / expected.max(), expected / expected.max(), "preprocess", "float32")
    assert np.array_equal(scores, maps.max(axis=(1, 2, 3)))
    assert runner.facts["resizing"] == "none" and "map [2, " in runner.facts["output"]


def test_a_grey_network_gets_grey_images(tiny: Bundle, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    runner, _ = open_file(tiny, write_model(tmp_path / "m.onnx", nodes, ("n", 1, "h", "w")), 1)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[...] = 51
    assert_close(runner.run([image])[0], np.full((1, 1, SIDE, SIDE), 0.2), "preprocess", "float32")


def test_another_fixed_size_is_resized_to_and_the_map_back(
    tiny: Bundle, tmp_path: Path, rng: np.random.Generator
) -> None:
    runner, _ = open_file(tiny, write_mean(tmp_path / "m.onnx", ("n", 3, 32, 32)), 1)
    (image,) = make_images(rng, 1)
    maps, _ = runner.run([image])
    assert maps.shape == (1, 1, SIDE, SIDE) and runner.facts["resizing"] == f"{SIDE} x {SIDE} to 32 x 32"
    assert abs(float(maps.mean()) - float(preprocess(image, 32, 32).mean())) < 1e-2


def test_without_a_map_the_score_is_the_mean_of_the_outputs(
    tiny: Bundle, tmp_path: Path, rng: np.random.Generator
) -> None:
    nodes = [helper.make_node("ReduceMax", ["x"], ["y"], axes=[1, 2, 3], keepdims=0)]
    runner, check = open_file(tiny, write_model(tmp_path / "m.onnx", nodes))
    images = make_images(rng, 2)
    maps, scores = runner.run(images)
    assert not maps.any() and "gives no map" in check.against
    assert_close(scores, [image.max() / 255 for image in images], "preprocess", "float32")


def test_outputs_of_whole_numbers_are_taken(tiny: Bundle, tmp_path: Path) -> None:
    nodes = [helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=1)]
    path = write_model(tmp_path / "m.onnx", nodes, output=("y", TensorProto.INT64))
    runner, check = open_file(tiny, path, 1)
    green = np.zeros((SIDE, SIDE, 3), np.uint8)
    green[0, 0, 1] = 255
    assert "OpenVINO" in check.against and runner.run([green])[1] == 1


def test_a_second_run_by_onnx_runtime_is_the_check_where_openvino_lacks_or_refuses(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mean(tmp_path / "m.onnx")

    def refuse(*arguments: Any) -> Any:
        raise EngineError("no such operator")

    with monkeypatch.context() as patch:
        patch.setattr(onnx_file, "open_openvino", refuse)
        assert "ONNX Runtime" in open_file(tiny, path)[1].against
    monkeypatch.setitem(sys.modules, "openvino", None)
    check = open_file(tiny, path)[1]
    assert "without optimisations" in check.against and check.allowed is not None


def test_without_onnx_runtime_the_extra_is_named(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mean(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime is not installed: pip install"):
        open_file(tiny, path)


@pytest.mark.parametrize(
    ("shape", "kind", "words"),
    [
        (("n", 5, "h", "w"), FLOAT, r"with 1 or 3 channels .*got x float32 \[n, 5, h, w\]"),
        (("n",), FLOAT, r"expected an image .*got x float32 \[n\]"),
        (NCHW, TensorProto.DOUBLE, "got x float64"),
        ((4, 3, "h", "w"), FLOAT, "expected a model of 2 images, or of any number, got x float32 .4,"),
    ],
)
def test_other_inputs_are_refused_by_name(
    tiny: Bundle, tmp_path: Path, shape: Sequence[Any], kind: int, words: str
) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    with pytest.raises(InputError, match=words):
        open_file(tiny, write_model(tmp_path / "m.onnx", nodes, shape, kind=kind, output=("y", kind)))


def test_two_inputs_are_refused_but_weights_among_the_inputs_are_not(tiny: Bundle, tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    scale = helper.make_tensor_value_info("s", FLOAT, [1])
    with pytest.raises(InputError, match=r"expected one input, the image, got x float32 .*; s float32 \[1\]"):
        open_file(tiny, write_model(tmp_path / "two.onnx", nodes, more_inputs=[scale]))
    weights = [numpy_helper.from_array(np.ones(1, np.float32), "s")]
    open_file(tiny, write_model(tmp_path / "old.onnx", nodes, more_inputs=[scale], weights=weights))


def test_a_file_that_cannot_be_read_is_one_clear_error(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file. Give the path of an ONNX model"):
        OnnxFileRival(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model at all, but long enough to be parsed")
    with pytest.raises(InputError, match=r"text.onnx: (cannot be read as ONNX|expected one image, .*got 0 inputs)"):
        open_file(tiny, tmp_path / "text.onnx")
    path = write_model(
        tmp_path / "far.onnx",
        [helper.make_node("Mul", ["x", "s"], ["y"])],
        weights=[numpy_helper.from_array(np.ones((1, 3, SIDE, SIDE), np.float32), "s")],
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"far.onnx: cannot be read as ONNX .*weights.bin"):
        open_file(tiny, path)


def test_an_operator_that_the_runtime_lacks_is_named(tiny: Bundle, tmp_path: Path) -> None:
    nodes = [helper.make_node("Abacus", ["x"], ["y"])]
    with pytest.raises(EngineError, match=r"ONNX Runtime refuses .*Abacus"):
        open_file(tiny, write_model(tmp_path / "m.onnx", nodes))


def test_a_model_without_numbers_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)]
    with pytest.raises(InputError, match="gives no numbers"):
        open_file(tiny, write_model(tmp_path / "m.onnx", nodes, output=("y", TensorProto.STRING)))

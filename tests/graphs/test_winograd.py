"""Winograd's form of a convolution gives the convolution's numbers, and is written only where it is asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ndp_rt.bundle import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from ndp_rt.engines.build import compile_engine
from ndp_rt.errors import InputError
from ndp_rt.graphs import winograd_rule
from ndp_rt.graphs.folding import load_model
from ndp_rt.graphs.winograd import TILES, rewrite_file, use_winograd
from ndp_rt.graphs.winograd_rule import WINDOWS_PX, choose_points, is_worth_rewriting
from tests.tolerances import assert_close

PLAIN = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1}
KINDS = [(4, 3), (6, 3), (6, 4)]  # points and window


def make_model(
    nodes: Sequence[NodeProto],
    tensors: dict[str, np.ndarray],
    c_in: int,
    h: int,
    w: int,
    outputs: Sequence[str] = ("y",),
) -> ModelProto:
    """Return a model of x, float32 [n, c_in, h, w]."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", c_in, h, w])]
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", f"{name}_c", f"{name}_h", f"{name}_w"])
        for name in outputs
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(list(nodes), "part", inputs, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_filters(rng: np.random.Generator, c_out: int, c_in: int, side: int = 3) -> np.ndarray:
    scale = (side * side * c_in) ** -0.5
    return np.asarray(scale * rng.normal(size=(c_out, c_in, side, side)), np.float32)


def convolve(inputs: Sequence[str], output: str, **changes: object) -> NodeProto:
    return helper.make_node("Conv", list(inputs), [output], name=f"/{output}/Conv", **{**PLAIN, **changes})


def run(model: ModelProto, x: np.ndarray, names: Sequence[str] = ("y",)) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(list(names), {"x": x})]


def rewrite(model: ModelProto, points: int) -> tuple[ModelProto, int]:
    """Return the model rewritten, whatever the sizes, and how many convolutions were."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy, use_winograd(copy, points, least_gflop=0.0, least_intensity=0.0)


@pytest.fixture(autouse=True)
def whatever_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results here are a few pixels large: a tile may reach as far past them as it likes."""
    monkeypatch.setattr(winograd_rule, "LEAST_SAVING", 0.0)


def test_there_is_a_tile_for_every_window() -> None:
    assert set(TILES) == {(points, window) for points, windows in WINDOWS_PX.items() for window in windows}


@pytest.mark.parametrize(("points", "window"), KINDS)
def test_a_tile_equals_taps_slid_over_it(points: int, window: int, rng: np.random.Generator) -> None:
    """One axis in float64: A^T ((G g) * (B^T d)) is the correlation of g with d."""
    tile = TILES[points, window]
    taps, values = rng.normal(size=window), rng.normal(size=points)
    found = tile.outputs_t @ ((tile.filters @ taps) * (tile.inputs_t @ values))
    assert np.abs(found - np.correlate(values, taps, mode="valid")).max() < 1e-12


@pytest.mark.parametrize(("points", "window"), KINDS)
@pytest.mark.parametrize(
    ("batch", "c_in", "c_out", "h", "w"), [(1, 1, 1, 4, 4), (2, 3, 5, 8, 12), (3, 16, 7, 20, 4), (1, 2, 3, 7, 13)]
)
@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 0, 0], [2, 0, 1, 3]])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_relu", [False, True])
def test_the_form_equals_the_convolution_borders_included(
    batch: int,
    c_in: int,
    c_out: int,
    h: int,
    w: int,
    has_bias: bool,
    has_relu: bool,
    pads: list[int],
    points: int,
    window: int,
    rng: np.random.Generator,
) -> None:
    tensors = {"w": make_filters(rng, c_out, c_in, window)}
    if has_bias:
        tensors["b"] = rng.normal(size=c_out).astype(np.float32)
    plain = {"kernel_shape": [window, window], "pads": pads}
    nodes = [convolve(["x", *tensors], "sum" if has_relu else "y", **plain)]
    if has_relu:
        nodes.append(helper.make_node("Relu", ["sum"], ["y"]))
    model = make_model(nodes, tensors, c_in, h, w)
    x = rng.normal(size=(batch, c_in, h, w)).astype(np.float32)
    rewritten, count = rewrite(model, points)
    onnx.checker.check_model(rewritten)
    assert count == 1
    assert "w" not in {tensor.name for tensor in rewritten.graph.initializer}  # the plain form is gone
    assert_close(run(rewritten, x)[0], run(model, x)[0], "winograd", "float32")


@pytest.mark.parametrize("points", WINDOWS_PX)
def test_two_that_are_added_share_one_output_transform(points: int, rng: np.random.Generator) -> None:
    tensors = {
        "w1": make_filters(rng, 6, 4),
        "b1": rng.normal(size=6).astype(np.float32),
        "w2": make_filters(rng, 6, 4),
    }
    nodes = [
        convolve(["x", "w1", "b1"], "first"),
        helper.make_node("Sigmoid", ["x"], ["other"]),
        convolve(["other", "w2"], "second"),
        helper.make_node("Add", ["first", "second"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    model = make_model(nodes, tensors, 4, 8, 8)
    x = rng.normal(size=(2, 4, 8, 8)).astype(np.float32)
    rewritten, count = rewrite(model, points)
    assert count == 2
    assert [node.op_type for node in rewritten.graph.node].count("DepthToSpace") == 1
    assert_close(run(rewritten, x)[0], run(model, x)[0], "winograd", "float32")


def test_two_of_other_windows_or_sides_that_are_added_have_their_own(rng: np.random.Generator) -> None:
    nodes = [
        convolve(["x", "w1"], "first"),
        convolve(["x", "w2"], "second", kernel_shape=[4, 4], pads=[1, 1, 2, 2]),
        convolve(["x", "w3"], "third", kernel_shape=[3, 3], pads=[0, 1, 0, 1]),
        helper.make_node("Add", ["first", "second"], ["both"]),
        helper.make_node("Add", ["both", "third"], ["y"]),
    ]
    tensors = {"w1": make_filters(rng, 5, 3), "w2": make_filters(rng, 5, 3, 4), "w3": make_filters(rng, 5, 3)}
    model = make_model(nodes, tensors, 3, 3, 8)  # the third is one row, which is spread
    x = rng.normal(size=(1, 3, 3, 8)).astype(np.float32)
    rewritten, count = rewrite(model, 6)
    assert count == 3
    assert_close(run(rewritten, x)[0], run(model, x)[0], "winograd", "float32")


def test_one_map_added_to_many_channels_is_spread_over_them(rng: np.random.Generator) -> None:
    tensors = {"w1": make_filters(rng, 5, 3), "w2": make_filters(rng, 1, 3)}
    nodes = [
        convolve(["x", "w1"], "first"),
        convolve(["x", "w2"], "second"),
        helper.make_node("Add", ["first", "second"], ["y"]),
    ]
    model = make_model(nodes, tensors, 3, 8, 8)
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    rewritten, count = rewrite(model, 4)
    assert count == 2
    assert_close(run(rewritten, x)[0], run(model, x)[0], "winograd", "float32")


@pytest.mark.parametrize("others", ["sum", "z"])
def test_a_result_with_other_readers_than_its_relu_stays_readable(others: str, rng: np.random.Generator) -> None:
    """The sum before the ReLU is an output too, or a second node reads it."""
    nodes = [
        convolve(["x", "w"], "sum"),
        helper.make_node("Relu", ["sum"], ["y"]),
        helper.make_node("Sigmoid", ["sum"], ["z"]),
    ]
    names = ("y", others)
    model = make_model(nodes[: 2 if others == "sum" else 3], {"w": make_filters(rng, 3, 3)}, 3, 8, 8, names)
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    rewritten, count = rewrite(model, 6)
    assert count == 1
    for found, expected in zip(run(rewritten, x, names), run(model, x, names), strict=True):
        assert_close(found, expected, "winograd", "float32")


def test_half_of_a_sum_with_another_reader_stays_readable(rng: np.random.Generator) -> None:
    nodes = [
        convolve(["x", "w1"], "first"),
        convolve(["x", "w2"], "second"),
        helper.make_node("Add", ["first", "second"], ["y"]),
        helper.make_node("Sigmoid", ["first"], ["z"]),
    ]
    tensors = {"w1": make_filters(rng, 3, 3), "w2": make_filters(rng, 3, 3)}
    model = make_model(nodes, tensors, 3, 8, 8, ("y", "z"))
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    rewritten, count = rewrite(model, 4)
    assert count == 2
    for found, expected in zip(run(rewritten, x, ("y", "z")), run(model, x, ("y", "z")), strict=True):
        assert_close(found, expected, "winograd", "float32")


@pytest.mark.parametrize(
    ("changes", "side", "h", "w"),
    [
        ({"strides": [2, 2]}, 3, 8, 8),
        ({"dilations": [2, 2], "pads": [2, 2, 2, 2]}, 3, 8, 8),
        ({"kernel_shape": [4, 4], "pads": [1, 1, 2, 2], "strides": [2, 2]}, 4, 8, 8),
        ({"auto_pad": "SAME_UPPER"}, 3, 8, 8),
        ({"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}, 5, 8, 8),
        ({"kernel_shape": [1, 1], "pads": [0, 0, 0, 0]}, 1, 8, 8),
        ({"group": 2}, 3, 8, 8),
    ],
)
def test_other_convolutions_stay_as_they_are(
    changes: dict[str, object], side: int, h: int, w: int, rng: np.random.Generator
) -> None:
    filters = make_filters(rng, 4, 4 // int(str(changes.get("group", 1))), side)
    model = make_model([convolve(["x", "w"], "y", **changes)], {"w": filters}, 4, h, w)
    if "auto_pad" in changes:
        del model.graph.node[0].attribute[[one.name for one in model.graph.node[0].attribute].index("pads")]
    rewritten, count = rewrite(model, 6)
    assert count == 0
    assert [node.SerializeToString() for node in rewritten.graph.node] == [
        node.SerializeToString() for node in model.graph.node
    ]


def test_filters_that_are_computed_from_the_input_stay(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Mul", ["w", "total"], ["weights"]),
        convolve(["x", "weights"], "y"),
    ]
    assert rewrite(make_model(nodes, {"w": make_filters(rng, 4, 4)}, 4, 8, 8), 6)[1] == 0


def test_only_what_is_large_enough_is_rewritten(rng: np.random.Generator) -> None:
    """8 channels to 8 over 16 x 16: 2.9e-4 GFLOP; 8 * 8 / 16 = 4 multiplications for a value moved."""
    model = make_model([convolve(["x", "w"], "y")], {"w": make_filters(rng, 8, 8)}, 8, 16, 16)
    for least_gflop, least_intensity, expected in ((2.9e-4, 4.0, 1), (3e-4, 4.0, 0), (2.9e-4, 4.1, 0)):
        copy = ModelProto()
        copy.CopyFrom(model)
        assert use_winograd(copy, 4, least_gflop=least_gflop, least_intensity=least_intensity) == expected


@pytest.mark.parametrize(
    ("side", "sides", "points", "expected"),
    [
        (3, (59, 59), 6, True),  # 9 x 59 x 59 multiplications instead of 36 x 15 x 15
        (3, (59, 59), 4, True),
        (3, (5, 5), 6, False),  # 225 instead of 144
        (4, (56, 56), 6, True),
        (4, (56, 56), 4, False),
        (4, (4, 4), 6, False),
        (5, (56, 56), 6, False),
    ],
)
def test_only_what_saves_half_of_the_multiplications_is_rewritten(
    side: int, sides: tuple[int, int], points: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    filters = (64, 64, side, side)
    assert is_worth_rewriting(filters, sides, points, least_gflop=0.0, least_intensity=0.0) == expected


def test_larger_windows_need_more_channels() -> None:
    for channels, expected in ((106, False), (107, True)):  # 107 * 107 / 214 = 53.5, and 30 * 16 / 9 = 53.3
        filters = (channels, channels, 4, 4)
        assert is_worth_rewriting(filters, (56, 56), 6, least_gflop=0.0, least_intensity=30.0) == expected


def test_convolutions_of_lines_stay() -> None:
    assert not is_worth_rewriting((64, 64, 3), (100,), 6, least_gflop=0.0, least_intensity=0.0)


def test_another_count_of_points_is_refused(rng: np.random.Generator) -> None:
    model = make_model([convolve(["x", "w"], "y")], {"w": make_filters(rng, 4, 4)}, 4, 8, 8)
    with pytest.raises(InputError, match="point_count: expected one of 4, 6, got 3"):
        use_winograd(model, 3, least_gflop=0.0, least_intensity=0.0)


def test_a_whole_network_gives_the_same_map_in_openvino(bundle: Bundle, tmp_path: Path) -> None:
    model = load_model(bundle.stage_path("fused"))
    assert use_winograd(model, 4, least_gflop=0.0, least_intensity=0.0) == 6
    onnx.save(model, str(tmp_path / "fused.onnx"))
    golden, options, maps = bundle.golden(), EngineOptions(batch=1, threads=1), {}
    for name, path in (("plain", bundle.stage_path("fused")), ("winograd", tmp_path / "fused.onnx")):
        artifact = tmp_path / name
        artifact.mkdir()
        OpenVinoBackend().compile(path, artifact, options)
        engine = OpenVinoBackend().load(artifact, options)
        outputs = {one: np.empty(spec.with_batch(1), np.float32) for one, spec in engine.outputs.items()}
        engine.run({"image": np.ascontiguousarray(golden.image[:1])}, outputs)
        maps[name] = outputs["map"].copy()
        engine.close()
    assert np.ptp(maps["plain"]) > 0.01
    assert_close(maps["winograd"], maps["plain"], "winograd_map", "float32")


def make_large_convolution(path: Path) -> Path:
    """Write a graph of one convolution of 2.7 GFLOP."""
    rng = np.random.default_rng(3)
    weight = numpy_helper.from_array(rng.normal(0.0, 0.03, (128, 128, 3, 3)).astype(np.float32), "weight")
    nodes = [helper.make_node("Conv", ["x", "weight"], ["y"], name="large", pads=[1, 1, 1, 1])]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 128, 96, 96]) for name in "xy"]
    graph = helper.make_graph(nodes, "one", tensors[:1], tensors[1:], [weight])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("precision", "flags", "points"),
    [
        ("fp32", (), 6),
        ("fp32", ("amx_bf16",), 6),
        ("bf16", ("avx512_bf16",), 4),
        ("bf16", ("avx512_bf16", "amx_bf16"), None),
        ("int8", (), None),
        ("mixed", (), None),
    ],
)
def test_the_points_go_with_precision_and_cpu_and_graphs_with_int8_layers_stay(
    precision: str, flags: tuple[str, ...], points: int | None
) -> None:
    assert choose_points(precision, flags) == points


@pytest.mark.parametrize("points", WINDOWS_PX)
def test_a_file_is_rewritten_with_so_many_products(tmp_path: Path, points: int) -> None:
    content = rewrite_file(make_large_convolution(tmp_path / "one.onnx"), points)
    assert content is not None
    nodes = onnx.load_from_string(content).graph.node
    shapes = [tuple(helper.get_attribute_value(a)) for n in nodes for a in n.attribute if a.name == "kernel_shape"]
    assert shapes.count((1, 1)) == points**2


def test_a_small_graph_and_a_file_that_is_no_graph_stay(tmp_path: Path, rng: np.random.Generator) -> None:
    small = make_model([convolve(["x", "w"], "y")], {"w": make_filters(rng, 4, 4)}, 4, 8, 8)
    for content in (small.SerializeToString(), b"no graph"):
        (tmp_path / "one.onnx").write_bytes(content)
        assert rewrite_file(tmp_path / "one.onnx", 6) is None


def test_engines_of_openvino_have_it_unless_told_otherwise(tmp_path: Path, rng: np.random.Generator) -> None:
    path = make_large_convolution(tmp_path / "one.onnx")
    x = rng.normal(0.0, 0.3, (1, 128, 96, 96)).astype(np.float32)
    results = []
    for uses_it in (True, False):
        options = EngineOptions(rewrites=uses_it)
        names = OpenVinoBackend().profile(path, options, {"x": x}, runs=1)
        assert any("winograd" in name for name in names) == uses_it
        engine = compile_engine("openvino", path, tmp_path / str(uses_it), options)
        y = np.empty_like(x)
        engine.run({"x": x}, {"y": y})
        engine.close()
        results.append(y)
    assert not np.array_equal(*results)
    assert_close(results[0], results[1], "winograd", "float32")

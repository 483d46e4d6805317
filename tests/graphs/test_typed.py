"""A precision in a graph's own types: borders, islands, weights, and results that stay near float32's."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.capi.installed import DEMO
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError, InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.graphs.stages import make_stage, make_stages
from ndp_rt.graphs.typed import BORDER_DTYPES, ONNX_TYPES, check_weights, find_islands, make_typed
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, fuse_maps
from tests.bricks import BRICKS
from tests.tolerances import assert_close

HALVES = ["fp16", "bf16"]


@pytest.fixture(scope="module", params=["tiny", "bricks"])
def fused(request: pytest.FixtureRequest, bundle: Bundle) -> ModelProto:
    return make_stage(bundle if request.param == "tiny" else open_bundle(BRICKS), "fused_levels")


def list_kinds(model: ModelProto) -> dict[str, int]:
    """Return the element type of every tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return kinds | {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_float32_precisions_change_nothing(fused: ModelProto, precision: str) -> None:
    assert make_typed(fused, precision) == fused


@pytest.mark.parametrize("precision", HALVES)
def test_borders_have_the_precisions_type_and_maps_are_float32(bundle: Bundle, precision: str) -> None:
    border = ONNX_TYPES[BORDER_DTYPES[precision]]
    for plan in ("staged", "unmerged", "fused"):
        for model in make_stages(bundle, plan).values():
            graph = make_typed(model, precision).graph
            for value in (*graph.input, *graph.output):
                wanted = TensorProto.FLOAT if value.name in LEVEL_MAPS else border
                assert value.type.tensor_type.elem_type == wanted, value.name


@pytest.mark.parametrize("precision", HALVES)
def test_the_checker_accepts_every_type(fused: ModelProto, precision: str) -> None:
    onnx.checker.check_model(make_typed(fused, precision), full_check=True)


@pytest.mark.parametrize("operator", ["ReduceL2", "ReduceMean", "ReduceMin"])
def test_a_reduction_keeps_its_axes_in_a_later_opset(operator: str) -> None:
    image, rows = (
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 2, 3, 4]), ("rows", [1, 2, 3, 1]))
    )
    nodes = [
        onnx.helper.make_node(operator, ["image"], ["reduced"], axes=[3], keepdims=1),
        onnx.helper.make_node("Relu", ["reduced"], ["rows"]),
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "reduction", [image], [rows]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    typed = make_typed(model, "bf16")
    onnx.checker.check_model(typed, full_check=True)
    (reduction,) = (one for one in typed.graph.node if one.op_type == operator)
    (axes,) = (tensor for tensor in typed.graph.initializer if tensor.name == reduction.input[1])
    assert typed.opset_import[0].version > 17 and numpy_helper.to_array(axes).tolist() == [3]


@pytest.mark.parametrize("precision", HALVES)
def test_convolutions_compute_in_half_precision_and_islands_in_float32(fused: ModelProto, precision: str) -> None:
    typed, islands = make_typed(fused, precision), find_islands(fused)
    kinds, half = list_kinds(typed), ONNX_TYPES[BORDER_DTYPES[precision]]
    for node in typed.graph.node:
        is_lacking = precision == "bf16" and node.op_type == "ConvTranspose"  # in TensorRT-RTX
        wanted = TensorProto.FLOAT if node.output[0] in islands or is_lacking else half
        if node.op_type != "Cast":
            assert kinds[node.output[0]] == wanted, f"{node.op_type} {node.output[0]}"
    multiplying = [node for node in fused.graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul")]
    summing_squares = [node for node in multiplying if node.output[0] in islands]
    assert len(summing_squares) in (0, 6) and len(multiplying) > 20
    assert all(node.input[0].endswith("_square") for node in summing_squares)


def test_islands_hold_norms_softmax_and_the_maps_sigmoids(fused: ModelProto) -> None:
    islands = find_islands(fused)
    counts: dict[str, int] = {}
    for node in fused.graph.node:
        if node.output[0] in islands:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    is_tiny = "Softmax" in counts
    norms = {"Mul": 6, "Conv": 6, "Sqrt": 6, "Max": 6, "Div": 6, "Softmax": 6}
    # Levels share their squares; K = 2 and 4 have a mean, a factor, a norm and a softmax each.
    rewritten = {
        "Mul": 3 + 6 + 6,
        "ReduceSum": 3 + 6,
        "AveragePool": 6,
        "Sqrt": 6,
        "Clip": 6,
        "Div": 6,
        "Sub": 6,
        "Exp": 6,
        "Reciprocal": 6,
    }
    assert counts == (norms if is_tiny else rewritten) | {"Sigmoid": 3}


def run(model: ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    """Run a graph in ONNX Runtime, which computes float16 nodes in float32 on the CPU and rounds between them."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def test_a_float16_graph_stays_near_the_golden_vectors(bundle: Bundle) -> None:
    golden = bundle.golden()
    found = run(make_typed(make_stage(bundle, "fused_levels"), "fp16"), golden.image.astype(np.float16))
    assert found["reconstruction"].dtype == np.float16
    assert all(found[name].dtype == np.float32 for name in LEVEL_MAPS)
    assert_close(fuse_maps([found[name] for name in LEVEL_MAPS]), golden.map, "map", "float16")


@pytest.mark.parametrize("precision", [*HALVES, "int8"])
def test_the_checker_accepts_every_type_of_memseg(precision: str) -> None:
    typed = make_typed(make_stage(open_bundle(DEMO), "fused"), precision)
    onnx.checker.check_model(typed, full_check=True)


def test_memseg_in_float16_is_accepted_by_its_golden_vectors() -> None:
    bundle = open_bundle(DEMO)
    golden, typed = bundle.golden(), make_typed(make_stage(bundle, "fused"), "fp16")
    found = np.concatenate([run(typed, image[None].astype(np.float16))["map"] for image in golden.image])
    assert float(np.abs(found - golden.map).max()) < find_tolerance("engine.map", "fp16").absolute / 2


def test_norms_of_large_features_stay_finite_in_float16(bundle: Bundle) -> None:
    """Features of some 300: their squares are past float16's 65504, they themselves are not."""
    model = make_stage(bundle, "fused_levels")
    for tensor in model.graph.initializer:
        if tensor.name == "encoder_1":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(300), tensor.name))
    typed = make_typed(model, "fp16")
    norms = [node.output[0] for node in typed.graph.node if node.op_type == "Sqrt"]
    for name in norms:
        typed.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    found = run(typed, bundle.golden().image.astype(np.float16))
    assert max(float(found[name].max()) for name in norms) > 256.0  # whose square is past 65504
    assert all(np.isfinite(found[name]).all() for name in (*norms, *LEVEL_MAPS, "reconstruction"))


def test_weights_are_rounded_to_the_nearest(bundle: Bundle) -> None:
    model = make_stage(bundle, "encoder")
    wanted = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    typed = make_typed(model, "bf16")
    assert {tensor.name for tensor in typed.graph.initializer} == set(wanted)
    for tensor in typed.graph.initializer:
        bits = np.frombuffer(tensor.raw_data, np.uint16).reshape(wanted[tensor.name].shape)
        assert tensor.data_type == TensorProto.BFLOAT16
        assert (widen(bits, "bfloat16") == widen(narrow(wanted[tensor.name], "bfloat16"), "bfloat16")).all()


def test_weights_past_float16_are_named(bundle: Bundle) -> None:
    model = make_stage(bundle, "encoder")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "encoder_2")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[3] = 7e4
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(EngineError, match=r"'encoder_2': expected values that float16 can hold, got up to 7e\+04"):
        make_typed(model, "fp16")
    make_typed(model, "bf16")


def test_weights_below_float16_are_named() -> None:
    small = np.float32([1e-7, -2e-8, 3e-8])
    with pytest.raises(EngineError, match="weights 'w': .* at most 1e-07, so small that it loses"):
        check_weights(small, "w", "float16")
    check_weights(small, "w", "bfloat16")
    check_weights(np.append(small, np.float32(1)), "w", "float16")  # they do not matter beside larger ones
    check_weights(np.zeros(3, np.float32), "w", "float16")
    with pytest.raises(EngineError, match="weights 'w': .* got up to nan"):
        check_weights(np.float32([1, np.nan]), "w", "bfloat16")


def test_other_precisions_are_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="expected one of fp32, tf32, fp16, bf16, int8, got 'fp8'"):
        make_typed(make_stage(bundle, "encoder"), "fp8")


def make_text_model(opset: int, body: str, outputs: str) -> ModelProto:
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return onnx.parser.parse_model(f"{head} model (float[1,4,3,4] image) => ({outputs}) {{{body}}}")


@pytest.mark.parametrize("precision", HALVES)
def test_casts_between_layers_give_what_the_next_ones_compute_in(precision: str) -> None:
    body = "bytes = Cast <to = 2> (image) back = Cast <to = 1> (bytes) y = Relu (back)"
    typed = make_typed(make_text_model(17, body, "float[1,4,3,4] y"), precision)
    onnx.checker.check_model(typed, full_check=True)
    casts = [onnx.helper.get_attribute_value(node.attribute[0]) for node in typed.graph.node if node.op_type == "Cast"]
    half = TensorProto.BFLOAT16 if precision == "bf16" else TensorProto.FLOAT16
    assert casts == [TensorProto.FLOAT, TensorProto.UINT8, half]  # the image as the float32 that the model casts from


def test_a_split_says_in_a_later_opset_how_many_parts_it_makes() -> None:
    body = "a, b = Split <axis = 1> (image) y = Add (a, b)"
    typed = make_typed(make_text_model(17, body, "float[1,2,3,4] y"), "bf16")
    onnx.checker.check_model(typed, full_check=True)
    (split,) = (node for node in typed.graph.node if node.op_type == "Split")
    assert {one.name: onnx.helper.get_attribute_value(one) for one in split.attribute} == {"axis": 1, "num_outputs": 2}


@pytest.mark.parametrize(("opset", "expected"), [(17, 19), (19, 19), (21, 21)])
def test_no_opset_is_set_back(opset: int, expected: int) -> None:
    typed = make_typed(make_text_model(opset, "y = Relu (image)", "float[1,4,3,4] y"), "int8")
    assert typed.opset_import[0].version == expected

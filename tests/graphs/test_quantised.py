"""int8 graphs: which convolutions are quantised, how, and how near their maps stay."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.bundle.int8_layers import Int8Layers
from ndp_rt.capi.installed import DEMO
from ndp_rt.cli import main
from ndp_rt.engines.int8_ranges import measure_all_layers
from ndp_rt.engines.stage_files import open_stages, write_stages
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError, InputError
from ndp_rt.graphs.folding import load_model
from ndp_rt.graphs.quantised import (
    QUANTISED,
    find_half_layers,
    find_weight_scales,
    name_layers,
    quantise,
    quantise_stages,
)
from ndp_rt.graphs.stages import make_stage, make_stages
from ndp_rt.graphs.typed import make_typed
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, fuse_maps
from ndp_rt.kernels.score.definition import score
from ndp_rt.kernels.smooth.definition import smooth
from tests.bricks import BRICKS


def run(model: ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph as it is written: ONNX Runtime 1.32's optimiser makes float16 Q/DQ three times as far off."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.fixture(scope="module")
def bricks() -> Bundle:
    return open_bundle(BRICKS, verify=False)


@pytest.fixture(scope="module")
def quantised(bricks: Bundle) -> ModelProto:
    return quantise_stages(bricks, "fused", measure_all_layers(bricks, bricks.golden().image))["fused_levels"]


def test_what_reads_pictures_or_ends_in_a_sigmoid_stays_in_half_precision(bricks: Bundle) -> None:
    model = make_stage(bricks, "fused_levels")
    layers, kept = name_layers(model), find_half_layers(model)
    assert {layers[name].input[0] for name in kept} > {"image", "reconstruction"}
    assert len(kept) == 2 + 4  # image and reconstruction, four sigmoids


def test_depthwise_convolutions_and_the_first_one_stay_in_half_precision() -> None:
    model = make_stage(open_bundle(DEMO, verify=False), "fused")
    layers, kept = name_layers(model), find_half_layers(model)
    depthwise = {name for name, node in layers.items() if "depthwise" in node.name}
    assert len(depthwise) == 11 and depthwise < kept
    assert {layers[name].name for name in kept - depthwise} == {"/backbone/stem/stem.1/Conv", "/head/last/Conv"}


def test_layers_in_front_of_a_silu_are_no_results() -> None:
    """SiLU reads a convolution's result twice, once through a sigmoid."""
    model = load_model(Path(__file__).parents[1] / "data" / "anomalib" / "Padim" / "model.onnx")
    kept = {name.rpartition(".blocks.")[2] for name in find_half_layers(model)}
    assert kept == {"model.feature_extractor.feature_extractor.conv_stem", "model.anomaly_map_generator.blur.kernel"}


def test_rbfrm_has_no_layer(bricks: Bundle) -> None:
    model = make_stage(bricks, "fused_levels")
    convolutions = [node for node in model.graph.node if node.op_type in QUANTISED]
    assert len(convolutions) - len(name_layers(model)) == 12  # two of each of its six


def test_a_layer_has_the_same_name_in_every_graph_of_a_bundle(bricks: Bundle, bundle: Bundle) -> None:
    for one in (bricks, bundle):
        wanted = sorted(name_layers(load_model(one.stage_path("fused"))))
        for plan in ("staged", "unmerged", "fused"):
            models = make_stages(one, plan).values()
            assert sorted(name for model in models for name in name_layers(model)) == wanted
        stages = ("encoder", "decoder", "head", "segmentation")
        assert sorted(name for stage in stages for name in name_layers(load_model(one.stage_path(stage)))) == wanted


def test_the_encoders_weights_make_two_layers(bricks: Bundle) -> None:
    layers = name_layers(load_model(bricks.stage_path("fused")))
    assert layers["encoder.levels.0.0.0"].input[0] == "image"
    assert layers["encoder.levels.0.0.0@reconstruction"].input[0] == "reconstruction"


def test_every_other_convolution_reads_int8_twice(bricks: Bundle, quantised: ModelProto) -> None:
    model = make_stage(bricks, "fused_levels")
    chosen = {node.output[0] for name, node in name_layers(model).items() if name not in find_half_layers(model)}
    producers = {name: node.op_type for node in quantised.graph.node for name in node.output}
    for node in quantised.graph.node:
        if node.op_type in QUANTISED:
            found = [producers.get(name) for name in node.input[:2]]
            assert (found == ["DequantizeLinear"] * 2) == (node.output[0] in chosen), node.output[0]
            assert "DequantizeLinear" not in [producers.get(name) for name in node.input[2:]]  # the bias


def test_a_tensor_that_several_layers_read_is_rounded_once(bricks: Bundle, quantised: ModelProto) -> None:
    weights = {tensor.name for tensor in quantised.graph.initializer}
    read = [node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    activations = [name for name in read if name not in weights]
    assert len(activations) == len(set(activations)) < len(read) - len(activations)


def test_layers_that_are_not_chosen_stay_as_they_are(bundle: Bundle) -> None:
    model = load_model(bundle.stage_path("fused"))
    name = next(iter(name_layers(model)))
    quantised = quantise(model, {name: 1.0})
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node) == 2
    assert quantise(model, {}) == model


def test_scales_are_symmetric_and_of_each_output_channel(quantised: ModelProto) -> None:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    for node in quantised.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (tensors[name] for name in node.input[1:])
            assert zero.dtype == np.int8 and (zero == 0).all()
            if node.input[0] in tensors:
                axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
                weights = np.abs(tensors[node.input[0]])
                largest = weights.max(axis=tuple(one for one in range(4) if one != axis))
                assert scale == pytest.approx(largest / 127, rel=1e-5)


def test_weights_next_to_nothing_have_a_scale_that_float16_holds() -> None:
    """TensorRT refuses a scale of 0. MemSeg's backbone has channels whose weights are about 1e-38."""
    weights = np.ones((4, 2, 3, 3), np.float32) * np.float32([[[[0]]], [[[1e-38]]], [[[1e-6]]], [[[0.5]]]])
    scales = find_weight_scales(weights, 0)
    assert (scales.astype(np.float16) > 0).all()
    rounded = np.rint(weights / scales[:, None, None, None]) * scales[:, None, None, None]
    assert np.abs(rounded - weights).max() < 1e-6


def test_a_layer_that_reads_zeros_alone_has_a_scale_that_float16_holds(bundle: Bundle) -> None:
    model = load_model(bundle.stage_path("fused"))
    layers = name_layers(model)
    quantised = quantise(model, dict.fromkeys(layers, 1e-6))
    scales = {one.name: numpy_helper.to_array(one) for one in quantised.graph.initializer}
    read = [scales[f"{node.output[0]}_read_scale"] for node in layers.values()]
    assert read and (np.array(read).astype(np.float16) > 0).all()
    onnx.checker.check_model(make_typed(quantised, "int8"), full_check=True)


def test_typed_int8_has_float16_borders_and_passes_the_checker(quantised: ModelProto) -> None:
    typed = make_typed(quantised, "int8")
    onnx.checker.check_model(typed, full_check=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*typed.graph.input, *typed.graph.output)}
    half = dict.fromkeys(("image", "reconstruction"), TensorProto.FLOAT16)
    assert kinds == half | dict.fromkeys(LEVEL_MAPS, TensorProto.FLOAT)
    assert typed.opset_import[0].version == 19


def test_maps_and_scores_stay_within_the_tolerance(bricks: Bundle, quantised: ModelProto) -> None:
    golden = bricks.golden()
    found = run(make_typed(quantised, "int8"), {"image": golden.image.astype(np.float16)})
    fused = fuse_maps([found[name] for name in LEVEL_MAPS])
    differences = {
        "engine.map": np.abs(fused - golden.map).max(),
        "engine.score": np.abs(score(smooth(fused)) - golden.score).max(),
    }
    for name, difference in differences.items():
        allowed = find_tolerance(name, "int8").absolute
        print(f"{name}: {difference:.2e} of {allowed:.0e}")
        assert 1e-3 < difference <= allowed  # below 1e-3 nothing was quantised


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
def test_stages_of_every_plan_are_written_the_same_each_time(bundle: Bundle, tmp_path: Path, plan: str) -> None:
    images = bundle.golden().image
    written = [write_stages(bundle, "int8", tmp_path / name, plan=plan, calibration=images) for name in ("a", "b")]
    assert all(stage.sha256 == written[1].stages[name].sha256 for name, stage in written[0].stages.items())
    graphs = {name: onnx.load(str(stage.path)).graph for name, stage in written[0].stages.items()}
    plain = {n for n, graph in graphs.items() if not any(node.op_type == "QuantizeLinear" for node in graph.node)}
    # The tiny decoder and segmentation have one convolution before each sigmoid, and no other.
    assert plain == ({"decoder", "segmentation_levels"} if plan == "unmerged" else set())


def test_ranges_come_from_all_images(bundle: Bundle) -> None:
    """A bright image after a dark one widens what the second convolution may read."""
    images = bundle.golden().image[:1]

    dark, both = (
        measure_all_layers(bundle, calibration).limits
        for calibration in (images * np.float32(0.1), np.concatenate([images * np.float32(0.1), images]))
    )
    assert both["encoder_2"] > 1.5 * dark["encoder_2"]
    assert set(dark) == set(both) and all(both[name] >= dark[name] for name in dark)


def test_images_of_another_kind_are_refused(bundle: Bundle) -> None:
    for bad in (np.zeros((2, 3, 32, 64), np.float32), np.zeros((0, 3, 64, 64), np.float32), np.zeros((2, 3, 64, 64))):
        with pytest.raises(InputError, match="expected calibration images float32 .*, got float"):
            measure_all_layers(bundle, bad)


def test_int8_goes_with_calibration_and_nothing_else_does(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no layers are chosen for int8, .*ndp-rt quantise .*--calibrate IMAGES"):
        write_stages(bundle, "int8", tmp_path / "out")
    with pytest.raises(InputError, match="expected no calibration images for precision fp16"):
        write_stages(bundle, "fp16", tmp_path / "out", calibration=bundle.golden().image)
    assert not (tmp_path / "out").exists()


def test_a_choice_without_a_layer_that_gains_is_refused(bricks: Bundle) -> None:
    half = find_half_layers(make_stage(bricks, "fused_levels"))
    layers = Int8Layers(limits=dict.fromkeys(half, 1.0), chosen={"int8": tuple(half)})
    with pytest.raises(EngineError, match="expected convolutions for int8, got none"):
        quantise_stages(bricks, "fused", layers)


def test_a_quantised_graph_has_no_other_precision(bundle: Bundle) -> None:
    quantised = quantise_stages(bundle, "staged", measure_all_layers(bundle, bundle.golden().image))["encoder"]
    with pytest.raises(EngineError, match="'encoder': expected no QuantizeLinear nodes for fp16"):
        make_typed(quantised, "fp16")


def test_the_command_calibrates_on_images(
    bundle: Bundle, tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"good_{index}.png"), rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))
    arguments = ["export-stages", str(bundle.path), "--precision", "int8", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--calibrate", str(tmp_path)]) == 0
    captured = capfd.readouterr()
    assert "int8, plan staged" in captured.out and captured.err == ""
    assert open_stages(tmp_path / "out").stages["tail"].inputs["r3k2"].dtype == "float16"

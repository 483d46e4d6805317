"""int8 graphs: which convolutions are quantised, how, and how near their maps stay."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.cli import main
from ndp_rt.engines.gpu_stages import MAP_NAMES, make_gpu_stage
from ndp_rt.engines.quantised_graph import QUANTISED, find_half_convolutions, quantise_stages
from ndp_rt.engines.stage_files import open_stages, write_stages
from ndp_rt.engines.typed_graph import make_typed
from ndp_rt.errors import EngineError, InputError, MissingExtraError
from ndp_rt.kernels import reference
from ndp_rt.tolerances import find_tolerance

DEMO = Path(__file__).parents[2] / "ndp_rt" / "data" / "demo.ndp"


def run(model: ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph as it is written: ONNX Runtime 1.32's optimiser makes float16 Q/DQ three times as far off."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return open_bundle(DEMO, verify=False)


@pytest.fixture(scope="module")
def quantised(demo: Bundle) -> ModelProto:
    return quantise_stages(demo, "fused", demo.golden().image)["fused"]


def test_what_meets_pictures_sigmoids_and_rbfrm_stays_in_half_precision(demo: Bundle) -> None:
    model = make_gpu_stage(demo, "fused")
    convolutions = {node.output[0]: node for node in model.graph.node if node.op_type in QUANTISED}
    kept = find_half_convolutions(model)
    inputs = sorted(convolutions[name].input[0] for name in kept)
    # Image and reconstruction, four sigmoids, and two of each of RBFRM's six.
    assert len(kept) == 2 + 4 + 12 and {"image", "reconstruction"} < set(inputs)
    assert len(convolutions) - len(kept) == 40


def test_every_other_convolution_reads_int8_twice(demo: Bundle, quantised: ModelProto) -> None:
    kept = find_half_convolutions(make_gpu_stage(demo, "fused"))
    producers = {name: node.op_type for node in quantised.graph.node for name in node.output}
    for node in quantised.graph.node:
        if node.op_type in QUANTISED:
            found = [producers.get(name) for name in node.input[:2]]
            assert (found == ["DequantizeLinear"] * 2) == (node.output[0] not in kept), node.output[0]
            assert "DequantizeLinear" not in [producers.get(name) for name in node.input[2:]]  # the bias


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


def test_typed_int8_has_float16_borders_and_passes_the_checker(quantised: ModelProto) -> None:
    typed = make_typed(quantised, "int8")
    onnx.checker.check_model(typed, full_check=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*typed.graph.input, *typed.graph.output)}
    half = dict.fromkeys(("image", "reconstruction"), TensorProto.FLOAT16)
    assert kinds == half | dict.fromkeys(MAP_NAMES, TensorProto.FLOAT)
    assert typed.opset_import[0].version == 19


def test_maps_and_scores_stay_within_the_tolerance(demo: Bundle, quantised: ModelProto) -> None:
    golden = demo.golden()
    found = run(make_typed(quantised, "int8"), {"image": golden.image.astype(np.float16)})
    fused = reference.fuse_maps([found[name] for name in MAP_NAMES])
    differences = {
        "engine.map": np.abs(fused - golden.map).max(),
        "engine.score": np.abs(reference.score(reference.smooth(fused)) - golden.score).max(),
    }
    for name, difference in differences.items():
        allowed = find_tolerance(name, "int8").absolute
        print(f"{name}: {difference:.2e} of {allowed:.0e}")
        assert 1e-3 < difference <= allowed  # below 1e-3 nothing was quantised


@pytest.mark.parametrize("plan", ["staged", "unmerged", "fused"])
def test_stages_of_every_plan_are_written_the_same_each_time(bundle: Bundle, tmp_path: Path, plan: str) -> None:
    images = bundle.golden().image
    written = [write_stages(bundle, "int8", tmp_path / name, plan=plan, calibration=images) for name in ("a", "b")]
    assert all(stage.sha256 == written[1].stages[name].sha256 for name, stage in written[0].stages.items())
    graphs = {name: onnx.load(str(stage.path)).graph for name, stage in written[0].stages.items()}
    plain = {n for n, graph in graphs.items() if not any(node.op_type == "QuantizeLinear" for node in graph.node)}
    # The tiny decoder and segmentation have one convolution before each sigmoid, and no other.
    assert plain == ({"decoder", "segmentation"} if plan == "unmerged" else set())


def test_ranges_come_from_all_images(bundle: Bundle) -> None:
    """A bright image after a dark one widens what the second convolution may read."""
    images = bundle.golden().image[:1]

    def find_scales(calibration: np.ndarray) -> dict[str, float]:
        model = quantise_stages(bundle, "staged", calibration)["encoder"]
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        return {name: float(value) for name, value in tensors.items() if name.startswith("f") and value.ndim == 0}

    dark, both = find_scales(images * np.float32(0.1)), find_scales(np.concatenate([images * np.float32(0.1), images]))
    scales = [name for name in dark if name.endswith("_scale")]
    assert scales and all(both[name] > 1.5 * dark[name] for name in scales)


def test_images_of_another_kind_are_refused(bundle: Bundle) -> None:
    for bad in (np.zeros((2, 3, 32, 64), np.float32), np.zeros((0, 3, 64, 64), np.float32), np.zeros((2, 3, 64, 64))):
        with pytest.raises(InputError, match="calibration images are float"):
            quantise_stages(bundle, "staged", bad)


def test_int8_goes_with_calibration_and_nothing_else_does(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"precision is int8, without calibration images; .*--calibrate IMAGES"):
        write_stages(bundle, "int8", tmp_path / "out")
    with pytest.raises(InputError, match="precision is fp16, with calibration images"):
        write_stages(bundle, "fp16", tmp_path / "out", calibration=bundle.golden().image)
    assert not (tmp_path / "out").exists()


def test_a_network_without_anything_to_quantise_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep_all(model: ModelProto) -> set[str]:
        return {node.output[0] for node in model.graph.node}

    monkeypatch.setattr("ndp_rt.engines.quantised_graph.find_half_convolutions", keep_all)
    with pytest.raises(EngineError, match="no convolution of it can be quantised"):
        quantise_stages(bundle, "fused", bundle.golden().image)


def test_a_quantised_graph_has_no_other_precision(bundle: Bundle) -> None:
    quantised = quantise_stages(bundle, "staged", bundle.golden().image)["encoder"]
    with pytest.raises(EngineError, match="stage 'encoder' has QuantizeLinear nodes, precision is fp16"):
        make_typed(quantised, "fp16")


def test_without_onnx_runtime_the_install_command_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ndp-rt\[onnxruntime\]'"):
        quantise_stages(bundle, "staged", bundle.golden().image)


def test_what_the_quantiser_refuses_is_an_error_of_ours(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise ValueError("no\n data")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fail)
    with pytest.raises(EngineError, match="cannot quantise stage 'encoder': no data. Use --precision fp16"):
        quantise_stages(bundle, "staged", bundle.golden().image)


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

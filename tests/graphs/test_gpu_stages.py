"""The graphs of a GPU plan compute what the bundle's own graphs compute."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.errors import BundleError, InputError
from ndp_rt.graphs.folding import fold_constants, load_model
from ndp_rt.graphs.gpu_stages import MAP_NAMES, TAIL_STAGES, cut_maps, make_gpu_stage, make_gpu_stages
from ndp_rt.kernels.fuse_maps.definition import fuse_maps
from ndp_rt.program.manifest import GPU_PLAN_STAGES
from tests.tolerances import assert_close

DEMO = Path(__file__).parents[2] / "ndp_rt" / "data" / "demo.ndp"
FEATURES = ["f1", "f2", "f3", "f4", "f5"]
REPAIRED = ["r3k2", "r3k4", "r4k2", "r4k4", "r5k2", "r5k4"]


@pytest.fixture(scope="module", params=["tiny", "demo"])
def any_bundle(request: pytest.FixtureRequest, bundle: Bundle) -> Bundle:
    return bundle if request.param == "tiny" else open_bundle(DEMO)


def run(model: ModelProto | Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def make_inputs(model: ModelProto, rng: np.random.Generator, count: int = 2) -> dict[str, np.ndarray]:
    shapes = {v.name: [d.dim_value or count for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["segmentation", "fused"])
def test_the_cut_maps_fused_give_the_uncut_graphs_map(any_bundle: Bundle, name: str, rng: np.random.Generator) -> None:
    cut = make_gpu_stage(any_bundle, name)
    inputs = make_inputs(cut, rng)
    found, expected = run(cut, inputs), run(any_bundle.stage_path(name), inputs)
    assert_close(fuse_maps([found[one] for one in MAP_NAMES]), expected["map"], "fuse_maps", "float32")
    assert set(found) - set(MAP_NAMES) == set(expected) - {"map"}
    for other in set(expected) - {"map"}:
        assert_close(found[other], expected[other], "fuse_maps", "float32")


def test_the_tail_gives_what_its_three_stages_give_in_a_row(any_bundle: Bundle, rng: np.random.Generator) -> None:
    tail = make_gpu_stage(any_bundle, "tail")
    tensors = make_inputs(tail, rng)
    found = run(tail, tensors)
    for name in TAIL_STAGES:
        part = make_gpu_stage(any_bundle, name)
        tensors |= run(part, {value.name: tensors[value.name] for value in part.graph.input})
    for name in ("reconstruction", *MAP_NAMES):
        assert_close(found[name], tensors[name], "fuse_maps", "float32")


@pytest.mark.parametrize("plan", GPU_PLAN_STAGES)
def test_stages_have_the_plans_tensors_and_pass_the_checker(any_bundle: Bundle, plan: str) -> None:
    models = make_gpu_stages(any_bundle, plan)
    assert tuple(models) == GPU_PLAN_STAGES[plan]
    tensors = {
        name: ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
        for name, model in models.items()
    }
    expected = {
        "encoder": (["image"], FEATURES),
        "tail": (FEATURES + REPAIRED, ["reconstruction", *MAP_NAMES]),
        "decoder": (FEATURES[2:] + REPAIRED, ["reconstruction"]),
        "head": (["reconstruction"], ["g1", "g2", "g3"]),
        "segmentation": ([*FEATURES[:3], "g1", "g2", "g3"], [*MAP_NAMES]),
        "fused": (["image"], ["reconstruction", *MAP_NAMES]),
    }
    assert tensors == {name: expected[name] for name in models}
    for name, model in models.items():
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.name == name
        assert all(value.type.tensor_type.shape.dim[0].dim_param == "n" for value in model.graph.output)
        assert not {"Constant", "Cast", "Transpose", "Identity"} & {node.op_type for node in model.graph.node}
        assert not any(tensor.HasField("data_location") and tensor.data_location for tensor in model.graph.initializer)


def test_maps_are_named_by_their_size(any_bundle: Bundle) -> None:
    model = make_gpu_stage(any_bundle, "segmentation")
    height = any_bundle.manifest.input.height_px
    heights = {v.name: v.type.tensor_type.shape.dim[2].dim_value for v in model.graph.output}
    assert heights == {"am1": height, "am2": height // 2, "am3": height // 4}


def find_node(model: ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def weigh_otherwise(model: ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "share2")
    tensor.CopyFrom(numpy_helper.from_array(np.float32([0.3]), "share2"))


def resize_to_the_nearest(model: ModelProto) -> None:
    mode = next(attribute for attribute in find_node(model, "am_up3").attribute if attribute.name == "mode")
    mode.s = b"nearest"


def align_corners(model: ModelProto) -> None:
    mode = next(a for a in find_node(model, "am_up2").attribute if a.name == "coordinate_transformation_mode")
    mode.s = b"align_corners"


def leave_a_level_out(model: ModelProto) -> None:
    find_node(model, "map").input[1] = find_node(model, "map").input[0]


def leave_the_sigmoid_out(model: ModelProto) -> None:
    find_node(model, "am1").op_type = "Relu"


def square_the_map(model: ModelProto) -> None:
    last = find_node(model, "map")
    last.output[0] = "total"
    model.graph.node.append(helper.make_node("Mul", ["total", "total"], ["map"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (weigh_otherwise, r"0\.2 x \[n, 1, 64, 64\], 0\.3 x \[n, 1, 32, 32\]"),
        (resize_to_the_nearest, "a Resize node makes 'am_up3'"),
        (align_corners, "a Resize node makes 'am_up2'"),
        (leave_a_level_out, "its map is the sum of 0.2"),
        (leave_the_sigmoid_out, "a Relu node makes"),
        (square_the_map, "a Mul node makes 'map'"),
    ],
)
def test_another_form_is_refused(bundle: Bundle, change: Callable[[ModelProto], None], words: str) -> None:
    model = load_model(bundle.stage_path("segmentation"))
    cut_maps(model)  # as it is, it can be cut
    change(model)
    with pytest.raises(BundleError, match=f"stage 'segmentation' cannot be cut for the GPU: .*{words}"):
        cut_maps(model)


def test_another_upsampling_matrix_is_refused() -> None:
    model = load_model(DEMO / "segmentation.onnx")
    fold_constants(model)
    cut_maps(model)
    tensor = next(tensor for tensor in model.graph.initializer if re.search(r"rows_2", tensor.name))
    matrix = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(np.roll(matrix, 1, axis=0), tensor.name))
    with pytest.raises(BundleError, match="its map of level 2 is not upsampled bilinearly to 128 x 128"):
        cut_maps(model)


def test_another_plan_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="GPU plan is 'quick'; one of staged, unmerged, fused is taken"):
        make_gpu_stages(bundle, "quick")

"""The graphs of a GPU's programs compute what the bundle's own graphs compute."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.errors import InputError
from ndp_rt.graphs.stages import make_stage, make_stages
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, fuse_maps
from tests.bricks import BRICKS
from tests.tolerances import assert_close

FEATURES = ["f1", "f2", "f3", "f4", "f5"]
REPAIRED = ["r3k2", "r3k4", "r4k2", "r4k4", "r5k2", "r5k4"]


PLANS = {
    "staged": ("encoder", "tail"),
    "unmerged": ("encoder", "decoder", "head", "segmentation_levels"),
    "fused": ("fused_levels",),
}


@pytest.fixture(scope="module", params=["tiny", "bricks"])
def any_bundle(request: pytest.FixtureRequest, bundle: Bundle) -> Bundle:
    return bundle if request.param == "tiny" else open_bundle(BRICKS)


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
    cut = make_stage(any_bundle, f"{name}_levels")
    inputs = make_inputs(cut, rng)
    found, expected = run(cut, inputs), run(any_bundle.stage_path(name), inputs)
    assert_close(fuse_maps([found[one] for one in LEVEL_MAPS]), expected["map"], "fuse_maps", "float32")
    assert set(found) - set(LEVEL_MAPS) == set(expected) - {"map"}
    for other in set(expected) - {"map"}:
        assert_close(found[other], expected[other], "fuse_maps", "float32")


def test_the_tail_gives_what_its_three_stages_give_in_a_row(any_bundle: Bundle, rng: np.random.Generator) -> None:
    tail = make_stage(any_bundle, "tail")
    tensors = make_inputs(tail, rng)
    found = run(tail, tensors)
    for name in ("decoder", "head", "segmentation_levels"):
        part = make_stage(any_bundle, name)
        tensors |= run(part, {value.name: tensors[value.name] for value in part.graph.input})
    for name in ("reconstruction", *LEVEL_MAPS):
        assert_close(found[name], tensors[name], "fuse_maps", "float32")


@pytest.mark.parametrize("plan", PLANS)
def test_stages_have_the_plans_tensors_and_pass_the_checker(any_bundle: Bundle, plan: str) -> None:
    models = make_stages(any_bundle, plan)
    assert tuple(models) == PLANS[plan]
    tensors = {
        name: ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
        for name, model in models.items()
    }
    expected = {
        "encoder": (["image"], FEATURES),
        "tail": (FEATURES + REPAIRED, ["reconstruction", *LEVEL_MAPS]),
        "decoder": (FEATURES[2:] + REPAIRED, ["reconstruction"]),
        "head": (["reconstruction"], ["g1", "g2", "g3"]),
        "segmentation_levels": ([*FEATURES[:3], "g1", "g2", "g3"], [*LEVEL_MAPS]),
        "fused_levels": (["image"], ["reconstruction", *LEVEL_MAPS]),
    }
    assert tensors == {name: expected[name] for name in models}
    for name, model in models.items():
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.name == name
        assert all(value.type.tensor_type.shape.dim[0].dim_param == "n" for value in model.graph.output)
        assert not {"Constant", "Cast", "Transpose", "Identity"} & {node.op_type for node in model.graph.node}
        assert not any(tensor.HasField("data_location") and tensor.data_location for tensor in model.graph.initializer)


def test_maps_are_named_by_their_size(any_bundle: Bundle) -> None:
    model = make_stage(any_bundle, "segmentation_levels")
    height = any_bundle.manifest.input.height_px
    heights = {v.name: v.type.tensor_type.shape.dim[2].dim_value for v in model.graph.output}
    assert heights == {"am1": height, "am2": height // 2, "am3": height // 4}


def test_another_plan_is_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="plan on cuda: expected staged or unmerged or fused, got 'quick'"):
        make_stages(bundle, "quick")

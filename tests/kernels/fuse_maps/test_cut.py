"""fuse_maps cut off a graph's end: only off graphs that end in it. That the cut is right, tests/graphs shows."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from ndp_rt.bundle import open_bundle
from ndp_rt.errors import BundleError
from ndp_rt.graphs.folding import fold_constants, load_model
from ndp_rt.kernels.fuse_maps.cut import cut
from tests.bricks import BRICKS


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
def test_another_form_is_refused(tiny_bundle: Path, change: Callable[[ModelProto], None], words: str) -> None:
    model = load_model(open_bundle(tiny_bundle).stage_path("segmentation"))
    cut(model, "map")  # as it is, it can be cut
    change(model)
    with pytest.raises(BundleError, match=f"stage 'segmentation' cannot be cut for the GPU: .*{words}"):
        cut(model, "map")


def test_another_upsampling_matrix_is_refused() -> None:
    model = load_model(BRICKS / "segmentation.onnx")
    fold_constants(model)
    cut(model, "map")
    tensor = next(tensor for tensor in model.graph.initializer if re.search(r"rows_2", tensor.name))
    matrix = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(np.roll(matrix, 1, axis=0), tensor.name))
    with pytest.raises(BundleError, match="its map of level 2 is not upsampled bilinearly to 128 x 128"):
        cut(model, "map")

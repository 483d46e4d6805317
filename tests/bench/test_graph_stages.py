"""Nodes and layers to stages: every node of the bricks and of a plain export has one, and backends' names find it."""

from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from ndp_rt.bench.stage_split import (
    OTHER,
    find_layer_stages,
    find_node_stages,
    name_stages,
    sum_by_stage,
)
from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import fix_batch, load_model
from tests.bricks import BRICKS

ENCODER, RBFRM, DECODER, HEAD, SEGMENTATION = STAGES = ("encoder", "rbfrm", "decoder", "head", "segmentation")


def load(path: Path) -> Any:
    model = load_model(path)
    fix_batch(model, 1)
    return model


def find_by_name(model: Any) -> dict[str, str]:
    return {model.graph.node[number].name: stage for number, stage in find_node_stages(model, "ndpnet").items()}


@pytest.fixture(scope="module")
def named() -> dict[str, str]:
    return name_stages(load(BRICKS / "fused.onnx"), "ndpnet")


def test_every_node_of_bricks_has_a_stage() -> None:
    found = find_by_name(load(BRICKS / "fused.onnx"))
    assert set(found.values()) == set(STAGES)
    for name, stage in (
        ("/encoder/levels.0/levels.0.0/levels.0.0.0/Conv", ENCODER),
        ("/encoder/levels.0/levels.0.0/levels.0.0.0_1/Conv", HEAD),  # the same weights on the reconstruction
        ("/encoder_1/MaxPool", HEAD),
        ("/Conv", RBFRM),
        ("/ConvTranspose_5", RBFRM),
        ("/ffm.3/squeeze/Conv", DECODER),
        ("/decoder/up4/ConvTranspose", DECODER),
        ("/segmentation/levels.0/compare/first/Conv", SEGMENTATION),
        ("/segmentation/fuse_maps/Add_1", SEGMENTATION),
    ):
        assert found[name] == stage, name


@pytest.mark.torch
def test_every_node_of_an_export_without_rewrites_has_a_stage() -> None:
    import torch

    from ndp_rt.export.models.ndpnet.graphs import build_stages
    from ndp_rt.export.onnx.graphs import trace_stage
    from tests.export.random_run import random_network

    torch.set_num_threads(1)
    model = trace_stage(build_stages(random_network(), rewrite=False)["fused"])
    fix_batch(model, 1)
    found = find_by_name(model)
    assert set(found.values()) == set(STAGES)
    # Products of RBFRM and sigmoids of the maps both lie at the top.
    assert (found["/MatMul"], found["/Softmax"], found["/Sigmoid"]) == (RBFRM, RBFRM, SEGMENTATION)


def test_another_networks_stages_are_its_modules() -> None:
    names = ["/Mul", "/backbone/stem/Conv", "/backbone/Relu", "/Resize", "/backbone_1/Conv", "/head/Conv", "map"]
    nodes = [helper.make_node("Relu", [str(number)], [str(number + 1)], name=name) for number, name in enumerate(names)]
    found = find_node_stages(helper.make_model(helper.make_graph(nodes, "other", [], [])), "one that is not installed")
    assert list(found.values()) == [OTHER, *["backbone"] * 4, "head", "head"]


def test_a_node_that_no_rule_fits_is_told_apart() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], name="/neck/Relu"),
        helper.make_node("Relu", ["y"], ["reconstruction"], name="/decoder/Relu"),
    ]
    assert find_node_stages(helper.make_model(helper.make_graph(nodes, "fused", [], [])), "ndpnet") == {
        0: OTHER,
        1: DECODER,
    }


@pytest.mark.parametrize(
    ("layer", "stage"),
    [
        ("/encoder/levels.0/levels.0.0/levels.0.0.0/Conv/WithoutBiases", ENCODER),
        ("/encoder/levels.0/levels.0.0/levels.0.0.1_1/Relu_output_0_nchwc", HEAD),
        ("image_abcd_acdb_/encoder/levels.0/levels.0.0/levels.0.0.0/Conv/WithoutBiases", ENCODER),
        ("/Mul_15_abcd_acdb_/Exp_4", RBFRM),
        ("/Conv_5_output_0_nchwc", RBFRM),
        ("reconstruction_acdb_abcd_reconstruction/sink_port_0", DECODER),
        ("/segmentation/fuse_maps/MatMul_2/MatMulScaleFusion/", SEGMENTATION),
        ("map", SEGMENTATION),
        ("/Mulligan", OTHER),
    ],
)
def test_a_layer_is_known_by_the_name_that_it_begins_with(named: dict[str, str], layer: str, stage: str) -> None:
    assert find_layer_stages([layer], named) == {layer: stage}


def test_a_layer_of_a_new_name_follows_neighbours_that_agree(named: dict[str, str]) -> None:
    layers = ["/ffm.5/Div", "ConvolutionBackpropData_675", "/decoder/Relu", "Reorder_1", "/Conv_2", "Reorder_2"]
    found = find_layer_stages(layers, named)
    assert found["ConvolutionBackpropData_675"] == DECODER
    assert found["Reorder_1"] == OTHER  # between decoder and attention
    assert found["Reorder_2"] == RBFRM  # the last: only one neighbour
    assert find_layer_stages(["a", "b"], named) == {"a": OTHER, "b": OTHER}


def test_times_are_added_up_by_stage(named: dict[str, str]) -> None:
    layers = {"map": 1.0, "/ffm.5/Div": 2.0, "/decoder/Relu": 3.0, "/encoder/MaxPool": 4.0}
    found = sum_by_stage(layers, named)
    assert found == {ENCODER: 4.0, DECODER: 5.0, SEGMENTATION: 1.0}


@pytest.mark.parametrize("layers", [{}, {"map": 0.0}])
def test_a_profile_without_times_is_refused(named: dict[str, str], layers: dict[str, float]) -> None:
    with pytest.raises(InputError, match="took 0 ms"):
        sum_by_stage(layers, named)

"""FLOP and least bytes: against counting by hand, the kernels' floors, and PyTorch's own counter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ndp_rt.bench.flops import count_file, count_graph
from ndp_rt.bundle import open_bundle
from ndp_rt.bundle.programs import list_reads, list_tensors
from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import fix_batch
from ndp_rt.kernels.op import CountedOp
from ndp_rt.kernels.registry import find_op
from tests.bricks import BRICKS


def make_model(nodes: list[Any], inputs: dict[str, list[int]], outputs: dict[str, list[int]], **weights: Any) -> Any:
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in one.items()]
        for one in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    graph = helper.make_graph(nodes, "some network", *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def count(model: Any, precision: str = "fp32") -> tuple[int, int]:
    """Return FLOP and bytes of a network."""
    found = count_graph(model, batch=1, precision=precision)
    return found.flop_count, found.moved_bytes


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_sums_over_its_kernel_for_every_result(groups: int) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 1], pads=[1, 1, 1, 1], group=groups)
    model = make_model([node], {"x": [3, 4, 8, 6]}, {"y": [3, 10, 4, 6]}, w=(10, 4 // groups, 3, 3))
    flops, moved = count(model)
    assert flops == 2 * (3 * 10 * 4 * 6) * (4 // groups * 3 * 3)
    assert moved == 4 * (3 * 4 * 8 * 6 + 10 * 4 // groups * 9 + 3 * 10 * 4 * 6)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_spreads_every_value_over_its_kernel(groups: int) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], group=groups)
    model = make_model([node], {"x": [1, 4, 5, 3]}, {"y": [1, 6, 10, 6]}, w=(4, 6 // groups, 4, 4))
    assert count(model)[0] == 2 * (4 * 5 * 3) * (6 // groups * 4 * 4)


def test_matrix_products_multiply_rows_with_columns() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Gemm", ["u", "v", "b"], ["c"], transA=1),
    ]
    model = make_model(nodes, {"x": [5, 7, 3], "u": [9, 4]}, {"a": [5, 7, 2], "c": [4, 6]}, w=(3, 2), v=(9, 6), b=(6,))
    assert count(model)[0] == 2 * 5 * 7 * 2 * 3 + 2 * 4 * 6 * 9


def test_element_wise_operators_after_a_node_move_nothing_but_their_result() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["b", "other"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["y"]),
    ]
    model = make_model(nodes, {"x": [1, 2, 4, 4], "other": [1, 3, 4, 4]}, {"y": [1, 3, 4, 4]}, w=(3, 2, 1, 1))
    assert count(model)[1] == 4 * (2 * 16 + 3 * 2 + 3 * 16 + 3 * 16)  # x, w, other, y


def test_a_result_that_two_read_is_written_and_read() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),  # a is also z's, so Relu begins a group
        helper.make_node("MaxPool", ["a"], ["z"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model = make_model(nodes, {"x": [1, 1, 4, 4]}, {"y": [1, 1, 4, 4], "z": [1, 1, 2, 2]}, w=(1, 1, 1, 1))
    assert count(model)[1] == 4 * ((16 + 1 + 16) + (16 + 16) + (16 + 4))


def test_of_two_nodes_before_it_an_operator_joins_the_later() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"]),
        helper.make_node("Conv", ["x", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = make_model(nodes, {"x": [1, 1, 4, 4]}, {"y": [1, 1, 4, 4]}, v=(1, 1, 1, 1), w=(1, 1, 1, 1))
    assert count(model)[1] == 4 * ((16 + 1 + 16) + (16 + 1 + 16 + 16))  # the second reads a and writes y


def test_a_view_moves_nothing_and_hides_no_reader() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Flatten", ["a"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["y"]),
    ]
    assert count(make_model(nodes, {"x": [1, 2, 3]}, {"y": [1, 6]}))[1] == 4 * (6 + 6)
    both = make_model(nodes, {"x": [1, 2, 3]}, {"flat": [1, 6], "y": [1, 6]})  # the caller reads a through the view
    assert count(both)[1] == 4 * (6 + 6 + 6 + 6)


@pytest.mark.parametrize(
    ("precision", "share"), [("tf32", 1.0), ("bf16", 0.5), ("fp16", 0.5), ("int8", 0.25), ("mixed", 0.25)]
)
def test_bytes_follow_the_precision(precision: str, share: float) -> None:
    wide, narrow = (count_file(BRICKS / "fused.onnx", precision=one) for one in ("fp32", precision))
    assert narrow.gflop_per_image == wide.gflop_per_image
    assert narrow.megabytes_per_image == pytest.approx(share * wide.megabytes_per_image)


def test_the_fused_graph_is_the_stages_graphs_and_what_the_ops_say_that_they_compute() -> None:
    manifest = open_bundle(BRICKS, verify=False).manifest
    steps = manifest.programs["cpu"]["staged"].steps
    tensors, products = list_tensors(manifest, steps), 0
    for step in (step for step in steps if step.op):
        op = find_op(step.op)
        assert isinstance(op, CountedOp)
        reads = [replace(spec, shape=spec.with_batch(1)) for spec in list_reads(manifest, step, tensors)]
        products += op.count_flops(step.params, reads)
    alone = [count_file(BRICKS / f"{name}.onnx") for name in ("encoder", "decoder", "head", "segmentation")]
    assert products > 0
    assert count_file(BRICKS / "fused.onnx").flop_count == sum(one.flop_count for one in alone) + products


def test_a_batch_computes_as_much_for_each_image_and_reads_weights_once() -> None:
    one, eight = (count_file(BRICKS / "fused.onnx", batch=batch) for batch in (1, 8))
    assert eight.gflop_per_image == pytest.approx(one.gflop_per_image)
    assert eight.megabytes_per_image < one.megabytes_per_image


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(InputError, match="got 'fp8'"):
        count_file(BRICKS / "fused.onnx", precision="fp8")
    open_shape = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, None]}, {"y": [1, None]})
    with pytest.raises(InputError, match="the shape of 'x'"):
        count_graph(open_shape, batch=1, precision="fp32")


@pytest.mark.torch
def test_a_plain_export_has_the_flop_that_pytorch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ndp_rt.export.models.ndpnet.graphs import build_stages
    from ndp_rt.export.onnx.graphs import trace_stage
    from tests.export.random_run import random_network

    torch.set_num_threads(1)
    network = random_network()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(2, 3, 64, 64))
    model = trace_stage(build_stages(network, rewrite=False)["fused"])
    fix_batch(model, 2)
    counted = count_graph(model, batch=2, precision="fp32")
    assert counted.gflop_per_image == pytest.approx(counter.get_total_flops() / 2 * 1e-9)

"""Compiling without the onnx package, which only graphs with large convolutions need."""

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ndp_rt.cli.demo_page import BUNDLE
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.errors import MissingExtraError


def write_convolution(path: Path, rng: np.random.Generator, channel_count: int, side: int) -> Path:
    """Write a graph of one 3 x 3 convolution."""
    filters = rng.standard_normal((channel_count, channel_count, 3, 3)).astype("f4")
    shape = ["n", channel_count, side, side]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(filters, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra [graphs]."""
    for name in [name for name in sys.modules if name.split(".")[0] == "onnx" or name == "ndp_rt.graphs.winograd"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_demos_bundle_compiles_without_onnx(no_onnx: None, tmp_path: Path, precision: str) -> None:
    backend = find_host_backend("openvino")
    assert backend.compile(BUNDLE / "fused.onnx", tmp_path, EngineOptions(precision=precision))["artifact_bytes"] > 0


def test_a_large_convolution_says_which_extra_it_needs(tmp_path: Path, rng: np.random.Generator, no_onnx: None) -> None:
    backend, options = find_host_backend("openvino"), EngineOptions(threads=1)
    with pytest.raises(MissingExtraError, match=r"needs the package onnx.*'ndp-rt\[graphs\]'"):
        backend.compile(write_convolution(tmp_path / "large.onnx", rng, 64, 256), tmp_path, options)
    backend.compile(write_convolution(tmp_path / "small.onnx", rng, 16, 256), tmp_path, options)

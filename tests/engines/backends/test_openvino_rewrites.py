"""Changes of OpenVINO's graph: what is enlarged stays equal, and contrast survives bf16."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ndp_rt.arrays import FloatArray
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.graphs.quantised import quantise

NEEDS_BF16 = pytest.mark.skipif(not find_cpu().has_bf16, reason="needs a processor with avx512_bf16 or amx_bf16")


def make_model(nodes: Sequence[NodeProto], x: tuple[int, ...], y: tuple[int, ...], **tensors: FloatArray) -> ModelProto:
    """A graph from x to y, their shapes without the batch axis."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *y])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def make_enlargement(channel_count: int, h: int, w: int, factor: int) -> ModelProto:
    """A bilinear Resize as PyTorch writes it."""
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **how)
    scales = np.array([1, 1, factor, factor], np.float32)
    return make_model([node], (channel_count, h, w), (channel_count, factor * h, factor * w), scales=scales)


def make_start(rng: np.random.Generator, dtype: type, group_count: int) -> ModelProto:
    """How a network begins: 3 x 3, 3 x 3 with kernels that take a pixel's neighbours off it, 1 x 1, 1 x 1.

    Args:
        dtype: that the weights are stored as.
        group_count: of the second convolution; 16 make it depthwise.
    """
    differences = rng.uniform(0.5, 3.0, (16, 16 // group_count, 3, 3))
    differences[:, :, 1, 1] -= differences.sum(axis=(2, 3)) - 0.01
    weights = {
        "first": rng.uniform(0.0, 0.2, (16, 3, 3, 3)),
        "second": differences,
        "third": rng.standard_normal((16, 16, 1, 1)) / 4,
        "fourth": rng.standard_normal((16, 16, 1, 1)) / 4,
    }
    nodes, source = [], "x"
    for name, groups in zip(weights, (1, group_count, 1, 1), strict=True):
        pads = [1, 1, 1, 1] if weights[name].shape[-1] == 3 else [0, 0, 0, 0]
        if dtype is not np.float32:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.FLOAT))
        kernel = name if dtype is np.float32 else f"{name}_wide"
        result = "y" if name == "fourth" else f"{name}_result"
        nodes.append(helper.make_node("Conv", [source, kernel], [result], name=name, pads=pads, group=groups))
        source = result
    return make_model(nodes, (3, 32, 32), (16, 32, 32), **{name: one.astype(dtype) for name, one in weights.items()})


def run(model: ModelProto, x: FloatArray, folder: Path, precision: str) -> tuple[FloatArray, dict[str, dict[str, int]]]:
    """Return the result, and the kinds of layers with their precisions."""
    folder.mkdir(exist_ok=True)
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    backend, options = find_host_backend("openvino"), EngineOptions(precision=precision, batch=len(x), threads=1)
    backend.compile(path, folder, options)
    engine = backend.load(folder, options)
    out = {"y": np.empty(engine.outputs["y"].shape, np.float32)}
    engine.run({"x": x}, out)
    kinds = engine.precision_by_layer_type()
    engine.close()
    return out["y"], kinds


@pytest.mark.parametrize(("batch", "h", "w", "factor"), [(1, 4, 4, 8), (2, 3, 5, 2), (1, 1, 7, 3)])
def test_maps_are_enlarged_as_before(
    tmp_path: Path, rng: np.random.Generator, batch: int, h: int, w: int, factor: int
) -> None:
    x = rng.standard_normal((batch, 1, h, w)).astype(np.float32)
    model = make_enlargement(1, h, w, factor)
    expected = np.asarray(onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0])
    found, kinds = run(model, x, tmp_path, "fp32")
    assert "Interpolate" not in kinds
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_features_are_left_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 8, 4, 4)).astype(np.float32)
    _, kinds = run(make_enlargement(8, 4, 4, 2), x, tmp_path, "fp32")
    assert "Interpolate" in kinds


@pytest.mark.parametrize(
    ("h", "w", "factor", "is_kept"), [(512, 512, 2, False), (1024, 1024, 2, True), (512, 4, 8, False)]
)
def test_a_map_that_products_would_take_longer_for_is_left_alone(
    tmp_path: Path, h: int, w: int, factor: int, is_kept: bool
) -> None:
    _, kinds = run(make_enlargement(1, h, w, factor), np.zeros((1, 1, h, w), np.float32), tmp_path, "fp32")
    assert ("Interpolate" in kinds) == is_kept


@NEEDS_BF16
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_contrast_survives_bf16(tmp_path: Path, rng: np.random.Generator, dtype: type) -> None:
    """On a bright surface of little contrast. With all layers in bf16 the error is three times the contrast."""
    model = make_start(rng, dtype, group_count=16)
    x = (0.9 + 0.02 * rng.standard_normal((1, 3, 32, 32))).astype(np.float32)
    exact, _ = run(model, x, tmp_path / "fp32", "fp32")
    found, kinds = run(model, x, tmp_path / "bf16", "bf16")
    assert kinds["Convolution"] == {"bf16": 1, "f32": 3}
    inner = np.s_[:, :, 2:-2, 2:-2]  # the padding makes large differences
    assert np.abs(found - exact)[inner].max() < 0.05 * exact[inner].std()


@NEEDS_BF16
def test_without_depthwise_layers_all_compute_in_bf16(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.uniform(0.0, 1.0, (1, 3, 32, 32)).astype(np.float32)
    _, kinds = run(make_start(rng, np.float32, group_count=1), x, tmp_path, "bf16")
    assert kinds["Convolution"] == {"bf16": 4}


def test_layers_in_int8_stay_so(tmp_path: Path, rng: np.random.Generator) -> None:
    model = quantise(make_start(rng, np.float32, group_count=16), {"second": 6.0, "third": 6.0, "fourth": 6.0})
    x = rng.uniform(0.0, 1.0, (1, 3, 32, 32)).astype(np.float32)
    _, kinds = run(model, x, tmp_path, "mixed")
    assert sum(kinds["Convolution"].get(name, 0) for name in ("i8", "u8")) == 3


@NEEDS_BF16
@pytest.mark.parametrize(("flags", "product_count"), [((), 16), (("amx_bf16",), 1)])
def test_winograds_transforms_are_no_layers_of_contrast_and_units_for_bf16_do_without_them(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    product_count: int,
) -> None:
    cpu = replace(find_cpu(), isa_flags=flags)
    monkeypatch.setattr("ndp_rt.engines.backends.openvino.engine.find_cpu", lambda: cpu)
    weight = rng.normal(0.0, 0.03, (128, 128, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "weight"], ["y"], name="large", pads=[1, 1, 1, 1])
    model = make_model([node], (128, 96, 96), (128, 96, 96), weight=weight)
    _, kinds = run(model, rng.standard_normal((1, 128, 96, 96)).astype(np.float32), tmp_path, "bf16")
    assert set(kinds["Convolution"]) == {"bf16"} and kinds["Convolution"]["bf16"] >= product_count
    assert (kinds["Convolution"]["bf16"] == 1) == (product_count == 1)

"""Engines themselves: whose memory they use, what they refuse, and how precisely they say they compute."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ndp_rt.bundle import Bundle
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.onnxruntime.engine import count_precisions
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.errors import ClosedError, EngineError, InputError
from tests.tolerances import assert_close

Arrays = dict[str, np.ndarray]


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path) -> Iterator[Engine]:
    options = EngineOptions(batch=2, threads=1)
    backend = find_host_backend(request.param)
    backend.compile(bundle.stage_path("fused"), tmp_path, options)
    engine = backend.load(tmp_path, options)
    yield engine
    engine.close()


def make_arrays(engine: Engine, image: np.ndarray) -> tuple[Arrays, Arrays]:
    outputs = {name: np.full(spec.with_batch(2), np.nan, np.float32) for name, spec in engine.outputs.items()}
    return {"image": image.copy()}, outputs


def test_tensors_are_those_of_the_bundle_with_the_engines_batch(engine: Engine) -> None:
    assert {name: spec.shape for name, spec in engine.inputs.items()} == {"image": (2, 3, 64, 64)}
    assert {name: spec.shape for name, spec in engine.outputs.items()} == {
        "map": (2, 1, 64, 64),
        "reconstruction": (2, 3, 64, 64),
    }


def test_results_are_written_into_the_callers_arrays(engine: Engine, bundle: Bundle) -> None:
    golden = bundle.golden()
    first, second = make_arrays(engine, golden.image), make_arrays(engine, golden.image[::-1])
    for _ in range(2):  # bound anew, and bound already
        for arrays, expected in ((first, golden.map), (first, golden.map), (second, golden.map[::-1])):
            arrays[1]["map"].fill(np.nan)
            engine.run(*arrays)
            assert_close(arrays[1]["map"], expected, "map", "float32")
    first[0]["image"][...] = golden.image[::-1]  # the same array with other content
    engine.run(*first)
    assert_close(first[1]["map"], golden.map[::-1], "map", "float32")


def test_arrays_of_another_kind_are_refused(engine: Engine, bundle: Bundle) -> None:
    inputs, outputs = make_arrays(engine, bundle.golden().image)
    wide = np.zeros((2, 3, 64, 128), np.float32)
    for bad, words in (
        ({}, "expected 'image' among the inputs, got none"),
        (
            {"image": inputs["image"][:1]},
            r"expected float32 \[2, 3, 64, 64\], dense, .*, got float32 \[1, 3, 64, 64\], dense",
        ),
        ({"image": inputs["image"].astype(np.float64)}, "float64"),
        ({"image": wide[..., ::2]}, "not dense"),
        ({"image": inputs["image"].tolist()}, "got list"),
    ):
        with pytest.raises(InputError, match=words):
            engine.run(bad, outputs)
    with pytest.raises(InputError, match="expected 'reconstruction' among the outputs"):
        engine.run(inputs, {"map": outputs["map"]})
    for array in (inputs["image"], outputs["map"]):
        array.flags.writeable = False
        with pytest.raises(InputError, match="read-only"):
            engine.run(inputs, outputs)
        array.flags.writeable = True
    engine.run(inputs, outputs)


def test_a_closed_engine_says_so(engine: Engine, bundle: Bundle) -> None:
    arrays = make_arrays(engine, bundle.golden().image)
    engine.run(*arrays)
    engine.close()
    engine.close()
    with pytest.raises(ClosedError):
        engine.run(*arrays)
    with pytest.raises(ClosedError):
        engine.precision_by_layer_type()


def test_every_layer_of_an_fp32_engine_computes_in_f32(engine: Engine) -> None:
    counts = engine.precision_by_layer_type()
    compute = {kind: found for kind, found in counts.items() if "Conv" in kind or "conv" in kind}
    assert compute and all(set(found) == {"f32"} for found in compute.values())


@pytest.mark.skipif(not find_cpu().has_bf16, reason="needs a CPU with AVX512-BF16 or AMX")
def test_a_bf16_engine_computes_in_bf16(bundle: Bundle, tmp_path: Path) -> None:
    backend, options = OpenVinoBackend(), EngineOptions(precision="bf16")
    backend.compile(bundle.stage_path("fused"), tmp_path, options)
    engine = backend.load(tmp_path, options)
    counts = engine.precision_by_layer_type()
    assert set(counts["Convolution"]) == {"bf16"}
    backend.check_precision(counts, "bf16")
    with pytest.raises(EngineError, match="asked for fp32, OpenVINO computes"):
        backend.check_precision(counts, "fp32")


def test_a_cpu_without_bf16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"asked for bf16, OpenVINO computes Convolution 3 x f32 on .*Build with"):
        OpenVinoBackend().check_precision({"Convolution": {"f32": 3}}, "bf16")


def test_an_engine_that_is_mostly_f32_is_no_bf16_engine() -> None:
    OpenVinoBackend().check_precision({"Convolution": {"bf16": 40, "f32": 8}, "MatMul": {"f32": 2}}, "bf16")
    with pytest.raises(EngineError, match="Convolution 1 x bf16, Convolution 47 x f32"):
        OpenVinoBackend().check_precision({"Convolution": {"bf16": 1, "f32": 47}}, "bf16")


def test_unknown_precisions_are_refused_by_each_backend(tmp_path: Path) -> None:
    for backend in (find_host_backend("openvino"), find_host_backend("onnxruntime")):
        with pytest.raises(InputError, match="got 'int3'"):
            backend.compile(tmp_path / "x.onnx", tmp_path, EngineOptions(precision="int3"))


def test_precisions_of_an_onnx_graph_are_counted_by_its_tensor_types(tmp_path: Path) -> None:
    half = numpy_helper.from_array(np.ones((2, 2), np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Shape", ["z"], ["s"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "z")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [half])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    onnx.load(str(tmp_path / "m.onnx"))
    assert count_precisions(tmp_path / "m.onnx") == {
        "Cast": {"f16": 1, "f32": 1},
        "MatMul": {"f16": 1},
        "Relu": {"f16": 1, "f32": 1},
        "Shape": {"f32": 1},
    }


def test_openvino_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    code = (
        "import sys; from ndp_rt.engines.backends.openvino.engine import _core; _core(); "
        "print('openvino_telemetry' in sys.modules)"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout.strip() == "False", done.stderr
    assert list(tmp_path.iterdir()) == []  # it would keep an identifier in ~/intel


@pytest.mark.parametrize("threads", [1, 2, None])
def test_openvino_pins_no_threads_as_others_may_want_the_same_cores(
    bundle: Bundle, tmp_path: Path, threads: int | None
) -> None:
    options = EngineOptions(threads=threads)
    OpenVinoBackend().compile(bundle.stage_path("fused"), tmp_path, options)
    engine = OpenVinoBackend().load(tmp_path, options)
    pins = engine._compiled.get_property("ENABLE_CPU_PINNING")
    engine.close()
    assert pins is False

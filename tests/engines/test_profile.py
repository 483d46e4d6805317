"""Profiles: the layers of an engine with their times, named after the graph's nodes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.onnxruntime import OnnxRuntimeBackend
from ndp_rt.engines.backends.onnxruntime.engine import read_profile
from ndp_rt.engines.backends.openvino import OpenVinoBackend
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.errors import EngineError, InputError
from tests.bricks import BRICKS

NAMES = ["openvino", "onnxruntime"]


def find_profiler(name: str) -> OpenVinoBackend | OnnxRuntimeBackend:
    backend = find_host_backend(name)
    assert isinstance(backend, OpenVinoBackend | OnnxRuntimeBackend)
    return backend


def make_inputs(batch: int, side: int) -> dict[str, np.ndarray]:
    return {"image": np.full((batch, 3, side, side), 0.5, np.float32)}


@pytest.mark.parametrize("name", NAMES)
def test_layers_bear_the_names_of_nodes_and_take_time(name: str) -> None:
    layers_ms = find_profiler(name).profile(BRICKS / "fused.onnx", EngineOptions(threads=1), make_inputs(1, 128), 2)
    assert all(value >= 0.0 for value in layers_ms.values()) and sum(layers_ms.values()) > 0.1
    order = [layer for layer in layers_ms if layer.startswith(("/encoder/levels.0", "/segmentation/levels.2/last"))]
    assert order[0].startswith("/encoder/levels.0/levels.0.0") and len(order) > 2  # as they run


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_taken_and_nodes_without_names_have_layers(name: str, bundle: Bundle) -> None:
    options = EngineOptions(batch=2, threads=1)
    layers_ms = find_profiler(name).profile(bundle.stage_path("fused"), options, make_inputs(2, 64), 1)
    assert len(layers_ms) > 20 and "" not in layers_ms


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_profiled_is_refused(name: str, bundle: Bundle, tmp_path: Path) -> None:
    profiler, path = find_profiler(name), bundle.stage_path("fused")
    with pytest.raises(InputError, match="expected 1 or more runs, got 0"):
        profiler.profile(path, EngineOptions(), make_inputs(1, 64), 0)
    with pytest.raises(InputError, match="image"):
        profiler.profile(path, EngineOptions(), make_inputs(2, 64), 1)
    (tmp_path / "bad.onnx").write_bytes(b"not ONNX")
    with pytest.raises(EngineError, match=r"refuses .*bad\.onnx"):
        profiler.profile(tmp_path / "bad.onnx", EngineOptions(), make_inputs(1, 64), 1)


def test_the_least_time_after_the_first_run_counts() -> None:
    def event(name: str, number: int, dur: int) -> dict[str, object]:
        arguments = {"op_name": "Conv", "node_index": str(number)}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": arguments}

    events: list[dict[str, object]] = [{"cat": "Session", "name": "model_run", "dur": 9999, "args": {}}]
    for dur in (900, 300, 200, 400):
        events += [event("b", 1, dur), event("a", 2, 10 * dur), event("", 3, 1), event("", 4, 1)]
    found = read_profile(json.loads(json.dumps(events)))
    assert found == pytest.approx({"b": 0.2, "a": 2.0, "Conv#3": 0.001, "Conv#4": 0.001})
    assert list(found) == ["b", "a", "Conv#3", "Conv#4"]

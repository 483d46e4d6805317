"""The split of a time: staged plans' own clocks, a profile of one engine, and what cannot be split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench.stage_split import (
    MAX_OTHER_SHARE,
    MAX_RUNS,
    MIN_RUNS,
    count_runs,
    name_steps,
    split_stages,
)
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.errors import InputError
from ndp_rt.graphs.folding import load_model
from ndp_rt.graphs.quantised import name_layers, write_quantised
from tests.bricks import BRICKS

FUSED = BRICKS / "fused.onnx"
STAGES = ("encoder", "rbfrm", "decoder", "head", "segmentation")  # NDP-Net's
PARTS_MS = {"preprocess": 0.5, "engine": 20.0, "postprocess": 1.5, "total": 22.5}
NEEDS_BF16 = pytest.mark.skipif(not find_cpu().has_bf16, reason="needs a CPU with AVX512-BF16 or AMX")


class FakeProfiler:
    """Answers with given times, and keeps what it was asked."""

    def __init__(self, **layers_ms: float) -> None:
        self.layers_ms = layers_ms
        self.asked: dict[str, Any] = {}

    def profile(
        self, onnx_path: Path, options: EngineOptions, inputs: Mapping[str, np.ndarray], runs: int
    ) -> dict[str, float]:
        self.asked = {"path": onnx_path, "options": options, "inputs": inputs, "runs": runs}
        return self.layers_ms


def test_a_staged_plan_has_measured_its_own_stages() -> None:
    own = {"encoder": 5.0, "rbfrm": 1.0, "decoder": 7.0, "head": 3.0, "segmentation": 4.0}
    stages_ms, source = name_steps({**PARTS_MS, **own})
    assert list(stages_ms.items()) == [("preprocess", 0.5), *own.items(), ("postprocess", 1.5)]
    assert "own clock" in source


def test_shares_of_a_profile_are_scaled_to_the_engines_time() -> None:
    profiler = FakeProfiler(**{"/encoder/MaxPool": 1.0, "/Conv": 2.0, "/decoder/Relu": 3.0, "map": 4.0})
    options = EngineOptions(batch=2, threads=1)
    stages_ms, source = split_stages(PARTS_MS, FUSED, "ndpnet", profiler, options)
    assert stages_ms == pytest.approx(
        {
            "preprocess": 0.5,
            "encoder": 2.0,
            "rbfrm": 4.0,
            "decoder": 6.0,
            "segmentation": 8.0,
            "postprocess": 1.5,
        }
    )
    assert "profile by the backend" in source and "no known stage" not in source
    image = profiler.asked["inputs"]["image"]
    assert image.shape == (2, 3, 128, 128) and image.dtype == np.float32 and 0 <= image.min() <= image.max() < 1
    assert profiler.asked["options"] == options and profiler.asked["runs"] == count_runs(2 * PARTS_MS["engine"])


@pytest.mark.parametrize(("run_ms", "count"), [(0.0, MAX_RUNS), (1.0, MAX_RUNS), (500.0, 6), (9000.0, MIN_RUNS)])
def test_a_slow_engine_is_run_less_often(run_ms: float, count: int) -> None:
    assert count_runs(run_ms) == count


def test_a_little_time_of_no_stage_is_shared_out_and_said() -> None:
    profiler = FakeProfiler(**{"/encoder/MaxPool": 49.0, "unknown": 2.0, "map": 49.0})
    stages_ms, source = split_stages(PARTS_MS, FUSED, "ndpnet", profiler, EngineOptions())
    assert stages_ms["encoder"] == stages_ms["segmentation"] == pytest.approx(10.0)
    assert "2.0% in layers of no known stage" in source


def test_much_time_of_no_stage_leaves_the_engine_whole() -> None:
    profiler = FakeProfiler(**{"/encoder/MaxPool": 45.0, "unknown": 10.0, "map": 45.0})
    stages_ms, source = split_stages(PARTS_MS, FUSED, "ndpnet", profiler, EngineOptions())
    assert list(stages_ms) == ["preprocess", "engine", "postprocess"] and stages_ms["engine"] == 20.0
    assert source == "not split: 10% of a profile is in layers of no known stage"


def test_a_backend_without_a_profile_leaves_the_engine_whole() -> None:
    stages_ms, source = split_stages(PARTS_MS, FUSED, "ndpnet", None, EngineOptions())
    assert stages_ms == {"preprocess": 0.5, "engine": 20.0, "postprocess": 1.5} and source.startswith("not split")


def test_without_the_engines_time_there_is_nothing_to_split() -> None:
    with pytest.raises(InputError, match="the parts are preprocess; 'engine' is needed"):
        split_stages({"preprocess": 1.0}, FUSED, "ndpnet", None, EngineOptions())


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["int8", "mixed"])
def test_an_int8_engines_time_is_split_by_the_names_of_the_bundles_graph(precision: str, tmp_path: Path) -> None:
    model, quantised = load_model(FUSED), tmp_path / "quantised.onnx"
    write_quantised(FUSED, dict.fromkeys(name_layers(model), 4.0), quantised)
    options = EngineOptions(precision=precision, threads=1)
    stages_ms, source = split_stages(PARTS_MS, FUSED, "ndpnet", find_host_backend("openvino"), options, quantised)
    assert list(stages_ms) == ["preprocess", *STAGES, "postprocess"], source
    assert sum(stages_ms[stage] for stage in STAGES) == pytest.approx(PARTS_MS["engine"])


def test_the_graph_that_was_compiled_is_the_one_that_is_profiled(tmp_path: Path) -> None:
    profiler = FakeProfiler(**{"/encoder/MaxPool": 1.0})
    split_stages(PARTS_MS, FUSED, "ndpnet", profiler, EngineOptions(), tmp_path / "quantised.onnx")
    assert profiler.asked["path"] == tmp_path / "quantised.onnx"


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize(
    ("backend", "precision"),
    [("openvino", "fp32"), pytest.param("openvino", "bf16", marks=NEEDS_BF16), ("onnxruntime", "fp32")],
)
def test_nearly_all_of_the_bricks_time_has_a_stage(backend: str, precision: str) -> None:
    options = EngineOptions(precision=precision, threads=1)
    stages_ms, source = split_stages(PARTS_MS, FUSED, "ndpnet", find_host_backend(backend), options)
    assert list(stages_ms) == ["preprocess", *STAGES, "postprocess"], source  # else more than 5 % had none
    assert MAX_OTHER_SHARE == 0.05
    assert sum(stages_ms[stage] for stage in STAGES) == pytest.approx(PARTS_MS["engine"])

"""Loading and running with a TensorRT-RTX that keeps the real interface: what fits, and what is kept for next time."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.devices import machine
from ndp_rt.devices.machine import Gpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.tensorrt_rtx import BACKEND
from ndp_rt.engines.backends.tensorrt_rtx.engine import TensorRtRtxEngine
from ndp_rt.errors import DeviceError, EngineError, InputError
from tests.fakes import fake_tensorrt_rtx
from tests.fakes.fake_tensorrt_rtx import make_plan

ADA = Gpu(name="RTX 4000 Ada", index=0, memory_bytes=2**34, compute_capability="8.9")
OPTIONS = EngineOptions(precision="fp16")


@pytest.fixture(autouse=True)
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(machine, "find_gpus", lambda: (ADA,))
    monkeypatch.setattr(machine, "find_driver_version", lambda: "575.1")
    return fake_tensorrt_rtx.install(monkeypatch)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "model-sm75.plan").write_bytes(make_plan("turing"))
    (folder / "model-sm86-sm89.plan").write_bytes(make_plan("newer"))
    return folder


def load(artifact: Path) -> TensorRtRtxEngine:
    return BACKEND.load(artifact, OPTIONS)


def find_caches(artifact: Path) -> list[Path]:
    return sorted(artifact.parent.glob("*.runtime-cache"))


def test_the_file_for_the_gpus_generation_is_loaded_and_run(trt: Any, artifact: Path) -> None:
    engine = load(artifact)
    assert trt.knobs.compiled == ["newer"] and engine.inputs["image"].shape == (1, 3, 8, 8)
    engine.bind({"image": 0x1000, "map": 0x2000})
    engine.enqueue(7)
    assert trt.knobs.runs == [(7, {"image": 0x1000, "map": 0x2000})]
    BACKEND.check_precision(engine.precision_by_layer_type(), "fp16")


def test_the_second_start_compiles_nothing(trt: Any, artifact: Path) -> None:
    first = load(artifact)
    BACKEND.keep([first])
    (cache,) = find_caches(artifact)
    written = cache.stat().st_mtime_ns, cache.read_bytes()
    second = load(artifact)
    BACKEND.keep([second])
    assert trt.knobs.compiled == ["newer"] and (cache.stat().st_mtime_ns, cache.read_bytes()) == written


@pytest.mark.parametrize("content", [b"", b"another machine's", b"\0" * 5000])
def test_a_runtime_cache_of_elsewhere_is_replaced(trt: Any, artifact: Path, content: bytes) -> None:
    BACKEND.keep([load(artifact)])
    (cache,) = find_caches(artifact)
    good = cache.read_bytes()
    cache.write_bytes(content)
    BACKEND.keep([load(artifact)])
    assert trt.knobs.compiled == ["newer", "newer"] and cache.read_bytes() == good


def test_each_gpu_and_driver_has_its_own_cache(trt: Any, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for gpu in (ADA, dataclasses.replace(ADA, name="RTX 3090", compute_capability="8.6")):
        monkeypatch.setattr(machine, "find_gpus", lambda gpu=gpu: (gpu,))
        BACKEND.keep([load(artifact)])
    monkeypatch.setattr(machine, "find_driver_version", lambda: "580.1")
    BACKEND.keep([load(artifact)])
    assert len(find_caches(artifact)) == 3 and len(trt.knobs.compiled) == 3


def test_a_cache_that_cannot_be_kept_is_a_warning(trt: Any, artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = load(artifact)
    engine._cache_path = Path("/proc/no/such/place")
    with caplog.at_level(logging.WARNING):
        engine.keep()
    assert "/proc/no" in caplog.text
    trt.knobs.refuses.add("set_runtime_cache")
    load(artifact)
    assert "takes no runtime cache; every start compiles" in caplog.text


@pytest.mark.parametrize(
    ("text", "strategy"), [("", "DISABLED"), ("off", "DISABLED"), ("engine", "WHOLE_GRAPH_CAPTURE")]
)
def test_graphs_are_the_engines_own_where_that_is_asked_for(
    trt: Any, artifact: Path, monkeypatch: pytest.MonkeyPatch, text: str, strategy: str
) -> None:
    monkeypatch.setenv("NDP_RT_CUDA_GRAPHS", text)
    load(artifact)
    assert trt.knobs.strategies == [strategy]
    monkeypatch.setenv("NDP_RT_CUDA_GRAPHS", "yes")
    with pytest.raises(InputError, match="NDP_RT_CUDA_GRAPHS: expected capture, engine or off, got 'yes'"):
        load(artifact)


def test_what_does_not_fit_is_one_sentence(trt: Any, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt.knobs.refuses.add("get_engine_validity")
    message = "does not fit here: version mismatch, unsupported cc; it is not used"
    with pytest.raises(EngineError, match=message):
        load(artifact)
    trt.knobs.refuses.clear()
    trt.knobs.refuses.add("deserialize_cuda_engine")
    with pytest.raises(EngineError, match=r"TensorRT-RTX 1\.7\.1\.116 refuses the engine: something is wrong"):
        load(artifact)
    trt.knobs.refuses.clear()
    trt.knobs.refuses.add("create_execution_context")
    with pytest.raises(DeviceError, match="no room for an engine's scratch memory"):
        load(artifact)
    monkeypatch.setattr(machine, "find_gpus", lambda: (dataclasses.replace(ADA, compute_capability="12.0"),))
    with pytest.raises(EngineError, match="expected an engine for sm120, which RTX 4000 Ada is, .* with --for sm120"):
        load(artifact)
    trt.knobs.has_driver = False
    monkeypatch.setattr(machine, "find_gpus", lambda: (ADA,))
    with pytest.raises(DeviceError, match=r"TensorRT-RTX 1\.7\.1\.116 makes no runtime"):
        load(artifact)


def test_an_engine_of_another_gpu_of_its_generation_warns(
    trt: Any, artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt.knobs.refuses.add("SUBOPTIMAL")
    load(artifact)
    assert "was built for another GPU than this one, and may be slower here" in caplog.text


def test_a_plan_that_is_gone_or_cut_is_one_sentence(trt: Any, artifact: Path) -> None:
    path = artifact / "model-sm86-sm89.plan"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(EngineError, match="refuses the engine: Serialization assertion"):
        load(artifact)
    path.unlink()
    with pytest.raises(EngineError, match="expected an engine for sm89"):
        load(artifact)

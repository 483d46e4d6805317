"""A GPU that is not there, TensorRT that builds nothing, and a stage to build with it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.tensorrt import TensorRtBackend
from ndp_rt.engines.backends.tensorrt.engine import TensorRtEngine
from ndp_rt.engines.backends.tensorrt.options import TensorRtOptions
from tests.fakes import fake_tensorrt, toy_device
from tests.fakes.fake_graphs import make_graph, write_graph

VERSIONS = ("8.5.3.1", "8.6.1", "10.0.1", "10.13.3.9", "11.4.0.106")
BACKEND = TensorRtBackend()
ADDRESSES = {"image": 0x1000, "reconstruction": 0x2000, "am1": 0x3000}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_device.install_gpu(monkeypatch)


@pytest.fixture(params=VERSIONS)
def any_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_tensorrt.install(monkeypatch, request.param)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_tensorrt.install(monkeypatch, "10.13.3.9")


@pytest.fixture
def old_trt(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fake_tensorrt.install(monkeypatch, "8.5.3.1")


class Stage:
    """A typed stage and a folder to build it into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.artifact = folder / "engine"

    def options(self, precision: str = "fp16", batch: int = 2, **build: Any) -> EngineOptions:
        build = {"onnx_stages": str(self.folder), **build} if build.get("strip") else build
        return EngineOptions(precision=precision, batch=batch, build=TensorRtOptions(**build), tell=self.lines.append)

    def write(self, graph: dict[str, Any]) -> Path:
        return write_graph(self.folder / "tail.onnx", graph)

    def compile(self, options: EngineOptions, graph: dict[str, Any] | None = None) -> Any:
        lib = sys.modules["tensorrt"]
        cast_kind = "IDENTITY" if lib.__version__.startswith("8.5") else "CAST"
        path = self.write(make_graph(options.precision, cast_kind) if graph is None else graph)
        self.artifact.mkdir()
        return BACKEND.compile(path, self.artifact, options)

    def load(self, options: EngineOptions) -> TensorRtEngine:
        return BACKEND.load(self.artifact, options)

    def build(self, **settings: Any) -> TensorRtEngine:
        options = self.options(**settings)
        self.compile(options)
        return self.load(options)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)

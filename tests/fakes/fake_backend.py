"""A GPU backend whose engines run on the CPU, on the fake GPU's streams (`host_engines`)."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndp_rt.engines.backend import BackendStatus, DeviceBackend, EngineOptions
from tests.fakes.fake_streams import Machine
from tests.fakes.host_engines import HostEngine


class FakeDeviceBackend(DeviceBackend):
    """See `ndp_rt.engines.backend.DeviceBackend`."""

    name = "fake"
    precisions = ("fp32",)

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.loaded: list[HostEngine] = []

    def find(self) -> BackendStatus:
        return BackendStatus(version="1.0", devices=("Fake GPU",))

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        shutil.copyfile(onnx_path, artifact / "stage.onnx")
        return {}

    def load(self, artifact: Path, options: EngineOptions) -> HostEngine:
        self.loaded.append(HostEngine(artifact / "stage.onnx", options.batch, self.machine))
        return self.loaded[-1]

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        """The engines are what the stages say."""

"""A GPU and a backend for it that compute nothing, for what goes on around engines: keys, cache, checks, commands."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.devices import machine as device
from ndp_rt.devices.machine import Gpu
from ndp_rt.engines import registry
from ndp_rt.engines.backend import BackendStatus, DeviceBackend, EngineOptions
from ndp_rt.engines.backends.tensorrt.backend import TensorRtBackend
from ndp_rt.engines.backends.tensorrt.options import TensorRtOptions
from ndp_rt.engines.golden_report import GoldenReport
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError

GPU = Gpu(name="Toy H200", index=0, memory_bytes=2**37, compute_capability="9.0")
DRIVER = "550.54"


class ToyEngine:
    """Says what its file says; runs nothing."""

    def __init__(self, counts: dict[str, dict[str, int]]) -> None:
        self.counts = counts
        self.is_closed = False

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        return self.counts

    def close(self) -> None:
        self.is_closed = True


class ToyBackend(DeviceBackend):
    """A device backend; the knobs are its attributes."""

    name = "toy"
    precisions = ("fp32", "fp16")
    build_options = TensorRtOptions
    find_free_fields = TensorRtBackend.find_free_fields

    def __init__(self) -> None:
        self.version: str | None = "10.3.0"
        self.compiled: list[tuple[str, EngineOptions]] = []
        self.loaded: list[ToyEngine] = []
        self.computes = "fp16"
        self.refusal: str | None = None

    def find(self) -> BackendStatus:
        return BackendStatus(
            version=self.version, devices=self.find_devices(), remedy=None if self.version else "pip install toy"
        )

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        self.compiled.append((onnx_path.name, options))
        (artifact / "plan").write_text(f"{onnx_path.name} {options.precision}")
        return {"log": "build.log"}

    def load(self, artifact: Path, options: EngineOptions) -> Any:
        if self.refusal:
            raise EngineError(self.refusal)
        self.loaded.append(ToyEngine({"convolution": {self.computes: 3}}))
        return self.loaded[-1]

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        if set(counts["convolution"]) != {precision}:
            raise EngineError(f"asked for {precision}, got {counts}")


def check(
    bundle: Bundle, spec: EngineSpec, engines: Mapping[str, Any], batch: int, tell: Callable[[str], None]
) -> Mapping[str, float | int]:
    """A check of built engines that finds nothing wrong; what it was called with is in `CHECKED`."""
    CHECKED.append(
        {"engines": dict(engines), "batch": batch, "precision": spec.precision, "device_index": spec.device_index}
    )
    report = GoldenReport(
        vector_count=2,
        map_max_abs_difference=0.0,
        map_tolerance=1.0,
        score_max_abs_difference=0.0,
        score_tolerance=1.0,
    )
    return asdict(report)


CHECKED: list[dict[str, Any]] = []


def install(patch: pytest.MonkeyPatch) -> ToyBackend:
    """Put the GPU and the backend in place for one test."""
    backend = ToyBackend()
    install_gpu(patch)
    install_check(patch)
    patch.setitem(registry.find_built_in(), backend.name, backend)
    return backend


def install_check(patch: pytest.MonkeyPatch) -> None:
    """Let engines that are built be found right."""
    CHECKED.clear()
    patch.setattr("ndp_rt.runtime.check.check_build", check)


def install_gpu(patch: pytest.MonkeyPatch) -> None:
    """Let this machine seem to have a GPU and its driver."""
    patch.setattr(device, "find_gpus", lambda: (GPU,))
    for module in ("devices.machine", "engines.backends.tensorrt.plan_manifest"):
        patch.setattr(f"ndp_rt.{module}.find_driver_version", lambda: DRIVER)
    patch.setattr("ndp_rt.engines.backends.tensorrt.plan_manifest.find_cuda_version", lambda: "12.4")


def run_worker_here(patch: pytest.MonkeyPatch) -> None:
    """Run the building child's work in this process, where the fakes are; the job still goes through JSON."""
    from ndp_rt.engines import build, worker

    patch.setattr(build, "_run_worker", lambda job, progress: worker.build(json.loads(json.dumps(job)), progress))

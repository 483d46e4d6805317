"""The TensorRT backend: it is known by name here, and says what it needs; engines are not built with it yet."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ndp_rt.device import find_gpus
from ndp_rt.engines.base import BackendStatus, EngineOptions
from ndp_rt.engines.device_engine import DeviceEngine
from ndp_rt.errors import EngineError, MissingExtraError

NAME = "tensorrt"
REMEDY = "pip install 'ndp-rt[gpu]' (CUDA 12) or 'ndp-rt[gpu13]' (CUDA 13), on a machine with an NVIDIA GPU"
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")


class TensorRtBackend:
    """See `ndp_rt.engines.base.Backend`; `compile` and `load` always raise, with the reason and the remedy."""

    name = NAME
    precisions = ("fp32", "fp16", "int8")

    def find(self) -> BackendStatus:
        for distribution in DISTRIBUTIONS:
            try:
                version = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            return BackendStatus(version=version, devices=tuple(gpu.name for gpu in find_gpus()))
        return BackendStatus(version=None, remedy=REMEDY)

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        self._refuse()

    def load(self, artifact: Path, options: EngineOptions) -> DeviceEngine:
        self._refuse()

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        status = self.find()
        if status.version is None:
            raise MissingExtraError(f"TensorRT is not installed; --backend tensorrt needs it: {REMEDY}.")
        raise EngineError(
            f"TensorRT {status.version} is installed, but this version of ndp-rt builds no engines with it; "
            "use --backend openvino, or a later ndp-rt."
        )

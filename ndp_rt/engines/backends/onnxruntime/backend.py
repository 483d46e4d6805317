"""The ONNX Runtime backend, fp32 on the CPU: a second opinion on every answer, and a rival in the benchmark."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backend import EngineOptions, HostBackend
from ndp_rt.errors import EngineError

if TYPE_CHECKING:
    from ndp_rt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
    from ndp_rt.engines.engine import FloatArray

REMEDY = "pip install 'ndp-rt[onnxruntime]'"


class OnnxRuntimeBackend(HostBackend):
    """See `ndp_rt.engines.backend.HostBackend`."""

    name = "onnxruntime"
    order = 20
    precisions = ("fp32",)
    distributions = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
    remedy = REMEDY

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        from ndp_rt.engines.backends.onnxruntime.engine import compile_model

        self.check_offered(options.precision)
        return compile_model(onnx_path, artifact, options)

    def load(self, artifact: Path, options: EngineOptions) -> "OnnxRuntimeEngine":
        from ndp_rt.engines.backends.onnxruntime.engine import load_model

        self.check_offered(options.precision)
        return load_model(artifact, options)

    def profile(
        self, onnx_path: Path, options: EngineOptions, inputs: Mapping[str, "FloatArray"], runs: int
    ) -> dict[str, float]:
        from ndp_rt.engines.backends.onnxruntime.engine import profile

        self.check_offered(options.precision)
        return profile(onnx_path, options, inputs, runs)

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        other = {kind: found for kind, found in counts.items() if "Conv" in kind and set(found) != {"f32"}}
        if other:
            raise EngineError(f"asked for {precision}, ONNX Runtime computes {other}. Build with --backend openvino.")

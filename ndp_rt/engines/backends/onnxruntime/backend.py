"""The ONNX Runtime backend, fp32 on the CPU: a second opinion on every answer, and a rival in the benchmark."""

from collections.abc import Mapping

from ndp_rt.engines.backend import LibraryBackend
from ndp_rt.errors import EngineError

REMEDY = "pip install 'ndp-rt[onnxruntime]'"


class OnnxRuntimeBackend(LibraryBackend):
    """See `ndp_rt.engines.backend.LibraryBackend`."""

    name = "onnxruntime"
    order = 20
    precisions = ("fp32",)
    distributions = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
    remedy = REMEDY
    engine_module = "ndp_rt.engines.backends.onnxruntime.engine"

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        other = {kind: found for kind, found in counts.items() if "Conv" in kind and set(found) != {"f32"}}
        if other:
            raise EngineError(f"asked for {precision}, ONNX Runtime computes {other}. Build with --backend openvino.")

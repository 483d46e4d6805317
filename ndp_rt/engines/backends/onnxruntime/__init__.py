"""Engines by ONNX Runtime on the CPU; imports ONNX Runtime on use."""

from ndp_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend

BACKEND = OnnxRuntimeBackend()

__all__ = ["BACKEND", "OnnxRuntimeBackend"]

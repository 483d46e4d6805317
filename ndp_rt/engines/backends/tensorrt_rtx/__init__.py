"""Engines by TensorRT-RTX on an NVIDIA RTX GPU, built on any machine. Needs NumPy and TensorRT-RTX alone."""

from ndp_rt.engines.backends.tensorrt_rtx.backend import TensorRtRtxBackend

BACKEND = TensorRtRtxBackend()

__all__ = ["BACKEND", "TensorRtRtxBackend"]

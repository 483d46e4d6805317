"""Engines by TensorRT on an NVIDIA GPU. Needs NumPy and TensorRT alone, and imports TensorRT on use."""

from ndp_rt.engines.backends.tensorrt.backend import TensorRtBackend

BACKEND = TensorRtBackend()

__all__ = ["BACKEND", "TensorRtBackend"]

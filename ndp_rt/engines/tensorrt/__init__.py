"""Engines by TensorRT on an NVIDIA GPU. Needs NumPy and TensorRT alone, and imports TensorRT on use."""

from ndp_rt.engines.tensorrt.backend import TensorRtBackend

__all__ = ["TensorRtBackend"]

"""Engines by PyTorch on an NVIDIA GPU; imports PyTorch on use."""

from ndp_rt.engines.backends.torch.backend import TorchCudaBackend

BACKEND = TorchCudaBackend()

__all__ = ["BACKEND", "TorchCudaBackend"]

"""Engines by PyTorch on an NVIDIA GPU."""

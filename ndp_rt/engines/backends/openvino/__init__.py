"""Engines by OpenVINO on the CPU; imports OpenVINO on use."""

from ndp_rt.engines.backends.openvino.backend import OpenVinoBackend

BACKEND = OpenVinoBackend()

__all__ = ["BACKEND", "OpenVinoBackend"]

"""Rewrites of ONNX graphs: folding, types, quantisation, Winograd's algorithm."""

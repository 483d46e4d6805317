"""Measuring: accuracy and inference time."""

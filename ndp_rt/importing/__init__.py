"""Brings ONNX models of other programs in as bundles."""

from ndp_rt.importing.run import Imported, ImportSettings, import_onnx

__all__ = ["ImportSettings", "Imported", "import_onnx"]

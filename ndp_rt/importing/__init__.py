"""Brings ONNX models of other programs in as bundles."""

from ndp_rt.importing.run import Imported, import_onnx
from ndp_rt.importing.terms import Convention, ImportSettings

__all__ = ["Convention", "ImportSettings", "Imported", "import_onnx"]

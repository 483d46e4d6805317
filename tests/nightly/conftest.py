"""What the slow tests share with the quick ones."""

from tests.capi.conftest import library_path

__all__ = ["library_path"]

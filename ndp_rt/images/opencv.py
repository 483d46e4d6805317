"""OpenCV, or what says at its first use why there is none: a machine that only runs engines on a GPU may lack it."""

import sys
from typing import Any

from ndp_rt.errors import MissingExtraError


class _Missing:
    """Stands in for OpenCV where it is missing or broken."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python asks for these by itself
            raise AttributeError(name)
        raise MissingExtraError(
            f"OpenCV cannot be used ({self._reason}). Uninstall other packages of OpenCV (pip list), then run: "
            f"{sys.executable} -m pip install --force-reinstall opencv-python-headless"
        )


def _load() -> tuple[Any, bool]:
    """Return OpenCV or its stand-in, and whether it is OpenCV."""
    try:
        import cv2
    except Exception as error:  # whatever a broken package raises
        return _Missing(f"{type(error).__name__}: {' '.join(str(error).split())}"), False
    if not hasattr(cv2, "resize"):
        return _Missing("its folder has no code, as when another wheel of it was removed"), False
    return cv2, True


cv2, HAS_OPENCV = _load()


def lacks_memory(error: BaseException) -> bool:
    """Tell whether an error is of memory that has run out."""
    is_opencvs = HAS_OPENCV and isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    return isinstance(error, MemoryError) or is_opencvs


__all__ = ["HAS_OPENCV", "cv2", "lacks_memory"]

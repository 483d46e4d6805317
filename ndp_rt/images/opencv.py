"""OpenCV, or None where it is missing: a machine with a GPU that only runs engines may lack it."""

from typing import Any

cv2: Any
try:
    import cv2
except ImportError:
    cv2 = None

__all__ = ["cv2"]

"""The installed TensorRT-RTX: its package and its module, which has TensorRT's interface."""

from typing import Any

from ndp_rt.errors import MissingExtraError

REMEDY = "pip install 'ndp-rt[rtx]' (CUDA 13) or 'ndp-rt[rtx12]' (CUDA 12)"
DISTRIBUTIONS = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx")


def import_tensorrt_rtx() -> Any:
    """Return the module tensorrt_rtx.

    Raises:
        MissingExtraError: it is not installed, or its libraries cannot be loaded; the message says why.
    """
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise MissingExtraError(f"TensorRT-RTX cannot be imported ({reason}). Install it with: {REMEDY}.") from error
    return tensorrt_rtx

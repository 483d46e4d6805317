"""smooth on the CPU: OpenCV's filters."""

from ndp_rt.arrays import FloatArray
from ndp_rt.images.opencv import cv2
from ndp_rt.kernels.checks import check_dense
from ndp_rt.kernels.smooth.definition import SIZE_PX, check_size


def smooth(maps: FloatArray, out: FloatArray, scratch: FloatArray, *, size_px: int = SIZE_PX) -> None:
    """Write maps after the mean and then the median of size x size pixels (borders replicated) to `out`.

    Args:
        maps: float32 [..., h, w], host, dense.
        out: float32 of the same shape, host, dense; overwritten; not `maps` itself.
        scratch: float32 [h, w], host, dense; overwritten.
        size_px: 3 or 5.

    Raises:
        InputError: a shape, dtype, layout or size differs from the above.
    """
    check_size(size_px)
    h, w = maps.shape[-2:]
    for name, array, shape in (("maps", maps, maps.shape), ("out", out, maps.shape), ("scratch", scratch, (h, w))):
        check_dense(name, array, shape)
    for single, smoothed in zip(maps.reshape(-1, h, w), out.reshape(-1, h, w), strict=True):
        smooth_map(single, smoothed, scratch, size_px)


def smooth_map(single: FloatArray, out: FloatArray, scratch: FloatArray, size_px: int) -> None:
    """Smooth one map [h, w], as `smooth` does, of a caller who made the arrays and needs no check at every call."""
    cv2.blur(single, (size_px, size_px), dst=scratch, borderType=cv2.BORDER_REPLICATE)
    cv2.medianBlur(scratch, size_px, dst=out)

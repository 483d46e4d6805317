"""The definition of preprocess: NumPy, float64 inside."""

import numpy as np

from ndp_rt.arrays import Array, Float64Array
from ndp_rt.kernels.interpolation import weigh_area, weigh_linear


def preprocess(
    image: Array, height_px: int, width_px: int, *, channels: str = "rgb", white_level_16bit: int = 65535
) -> Float64Array:
    """Return the network's input [3, h, w], 0 to 1, from an image: the rule `area-or-linear-v1` of
    `ndp_rt.images.preprocess`.

    OpenCV leaves covers below 1e-3 of a pixel out of a mean, which happens where more than 1000 pixels are left; here
    every cover counts.

    Args:
        image: uint8 or uint16, [h', w'], [h', w', 1], [h', w', 3] or, with "drop-alpha", [h', w', 4].
        height_px: h.
        width_px: w.
        channels: one of `ndp_rt.images.checks.CHANNELS`.
        white_level_16bit: the uint16 value that becomes 1; larger ones are cut to it before resizing.
    """
    white = 255 if image.dtype == np.uint8 else white_level_16bit
    pixels = image[..., None] if image.ndim == 2 else image[..., :3]
    planes = np.minimum(pixels.transpose(2, 0, 1), white).astype(np.float64)
    rows, columns = (
        weigh_area(source, target) if source > target else weigh_linear(source, target)
        for source, target in zip(planes.shape[1:], (height_px, width_px), strict=True)
    )
    resized: Float64Array = rows @ planes @ columns.T / white
    if channels == "bgr":
        resized = resized[::-1]
    colours: Float64Array = np.broadcast_to(resized, (3, height_px, width_px)).copy()
    return colours

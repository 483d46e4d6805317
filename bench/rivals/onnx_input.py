"""How images become what an ONNX file takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.rivals.base import Image
from ndp_rt.images.opencv import cv2
from ndp_rt.importing.terms import ImageInput


def list_free_sizes(model: Any, taken: ImageInput, batch: int) -> dict[str, int]:
    """Return the settled size of every free axis of the input that has a name."""
    (value,) = (value for value in model.graph.input if value.name == taken.name)
    dims = value.type.tensor_type.shape.dim
    return {dim.dim_param: size for dim, size in zip(dims, taken.make_shape(batch), strict=True) if dim.dim_param}


def fill_input(images: Sequence[Image], out: NDArray[Any], taken: ImageInput) -> None:
    """Write images to the input's array; float32 becomes 0 to 1, uint8 stays as it is.

    Args:
        images: as many as the batch, uint8 [h, w, 3], of any size.
        out: of the input's shape and type; overwritten.
        taken: the input.
    """
    for image, target in zip(images, out, strict=True):
        planes = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if taken.channels == 1 else image
        h, w = taken.height_px, taken.width_px
        planes = resize(planes, h, w).reshape(h, w, taken.channels)
        layout = planes.transpose(2, 0, 1) if taken.layout == "nchw" else planes
        if out.dtype == np.uint8:
            target[...] = layout
        else:
            np.divide(layout, np.float32(255), out=target, dtype=np.float32)


def resize(image: NDArray[Any], height_px: int, width_px: int) -> NDArray[Any]:
    """Return an image [h, w] or [h, w, c] resized by the rule of `ndp_rt.images.preprocess`, in its own type."""
    low = min(height_px, image.shape[0]), min(width_px, image.shape[1])
    if low != image.shape[:2]:
        image = cv2.resize(image, low[::-1], interpolation=cv2.INTER_AREA)
    if low != (height_px, width_px):
        image = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    return image

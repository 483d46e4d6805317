"""The image input of an ONNX file: which layout, type and size it takes, and how images become it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.rivals.base import Image
from ndp_rt.errors import InputError
from ndp_rt.images.opencv import cv2

# onnx.TensorProto's numbers of the types that an image may have.
FLOAT, UINT8 = 1, 2
DTYPES: dict[int, np.dtype[Any]] = {FLOAT: np.dtype(np.float32), UINT8: np.dtype(np.uint8)}
EXPECTED = "expected one image, float32 or uint8, [n, c, h, w] or [n, h, w, c], c 3 or 1"


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """A graph's one input with every size settled."""

    name: str
    dtype: np.dtype[Any]
    is_nchw: bool
    n: int
    c: int
    h: int
    w: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Its four sizes, in its own layout."""
        return (self.n, self.c, self.h, self.w) if self.is_nchw else (self.n, self.h, self.w, self.c)


def read_input(model: Any, path: Path, batch: int, height_px: int, width_px: int) -> ImageInput:
    """Return what a model takes.

    Args:
        model: an onnx.ModelProto.
        path: for messages.
        batch: for a batch axis that is free.
        height_px: for an axis of rows that is free.
        width_px: likewise for columns.

    Raises:
        InputError: another number or kind of inputs, or another fixed batch.
    """
    weights = {tensor.name for tensor in model.graph.initializer}  # which old files list as inputs too
    inputs = [value for value in model.graph.input if value.name not in weights]
    came = ", ".join(map(describe, inputs)) or "nothing"
    if len(inputs) != 1:
        raise InputError(f"{path}: {EXPECTED}, got {len(inputs)} inputs ({came}). Export it with the image alone.")
    kind = inputs[0].type.tensor_type
    sizes = [dim.dim_value or None for dim in kind.shape.dim]
    if kind.elem_type not in DTYPES or len(sizes) != 4 or not {1, 3} & {sizes[1], sizes[3]}:
        raise InputError(f"{path}: {EXPECTED}, got {came}. Export it with such an input.")
    is_nchw = sizes[1] in (1, 3)
    n, h, w, c = (sizes[axis] for axis in ((0, 2, 3, 1) if is_nchw else (0, 1, 2, 3)))
    if n is not None and n != batch:
        raise InputError(f"{path}: expected batches of {n}, got {batch}. Use --batch {n}, or export it for any.")
    return ImageInput(
        name=inputs[0].name,
        dtype=DTYPES[kind.elem_type],
        is_nchw=is_nchw,
        n=batch,
        c=c or 1,
        h=h or height_px,
        w=w or width_px,
    )


def describe(value: Any) -> str:
    """Return an onnx.ValueInfoProto as words: image float32 [n, 3, 256, 256]."""
    kind = value.type.tensor_type
    sizes = [str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
    name = DTYPES[kind.elem_type].name if kind.elem_type in DTYPES else f"of ONNX type {kind.elem_type}"
    return f"{value.name} {name} [{', '.join(sizes)}]"


def list_free_sizes(model: Any, taken: ImageInput) -> dict[str, int]:
    """Return the settled size of every free axis of the input that has a name."""
    (value,) = (value for value in model.graph.input if value.name == taken.name)
    dims = value.type.tensor_type.shape.dim
    return {dim.dim_param: size for dim, size in zip(dims, taken.shape, strict=True) if dim.dim_param}


def fill_input(images: Sequence[Image], out: NDArray[Any], taken: ImageInput) -> None:
    """Write images to the input's array; float32 becomes 0 to 1, uint8 stays as it is.

    Args:
        images: as many as the batch, uint8 [h, w, 3], of any size.
        out: of the input's shape and type; overwritten.
        taken: the input.
    """
    for image, target in zip(images, out, strict=True):
        planes = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if taken.c == 1 else image
        planes = resize(planes, taken.h, taken.w).reshape(taken.h, taken.w, taken.c)
        layout = planes.transpose(2, 0, 1) if taken.is_nchw else planes
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

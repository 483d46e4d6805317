"""Finds the convolutions that Winograd's algorithm makes faster; unlike the rewrite, it needs no onnx package."""

from collections.abc import Sequence
from typing import Any

# Side of a tile of outputs by precision, where rounding allows it. Graphs with int8 layers stay as they are.
TILE_PX = {"fp32": 4, "bf16": 2}
LEAST_GFLOP, LEAST_INTENSITY = 2.0, 30.0  # below, an engine takes longer to load and is hardly faster


def is_worth_rewriting(
    filters: Sequence[int],
    sides: Sequence[int],
    *,
    least_gflop: float = LEAST_GFLOP,
    least_intensity: float = LEAST_INTENSITY,
) -> bool:
    """Tell whether a convolution has enough work.

    Args:
        filters: their shape, [c_out, c_in, 3, 3]; others are not rewritten.
        sides: h and w of the outputs.
        least_gflop: the least work on one image.
        least_intensity: the least c_in c_out / (c_in + c_out), the multiplications for each value that is moved.
    """
    c_out, c_in, *window = filters
    (h, w) = sides
    return (
        window == [3, 3]
        and 2e-9 * 9 * c_out * c_in * h * w >= least_gflop
        and c_in * c_out / (c_in + c_out) >= least_intensity
    )


def has_large_convolutions(model: Any) -> bool:
    """Tell whether a graph as OpenVINO has read it, with a fixed batch, may have convolutions worth rewriting."""
    for operation in model.get_ops():
        if operation.get_type_name() != "Convolution":
            continue
        filters, outputs = operation.input(1).get_partial_shape(), operation.output(0).get_partial_shape()
        if filters.is_dynamic or outputs.is_dynamic:
            return True
        if is_worth_rewriting(list(filters.to_shape()), list(outputs.to_shape())[2:]):
            return True
    return False

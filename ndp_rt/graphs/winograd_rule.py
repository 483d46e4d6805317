"""Finds the convolutions that Winograd's algorithm makes faster; unlike the rewrite, it needs no onnx package."""

from collections.abc import Sequence
from typing import Any

# Points of a transform by precision, where rounding allows it. Graphs with int8 layers stay as they are.
POINTS = {"fp32": 6, "bf16": 4}
TILE_UNITS = ("amx_bf16",)  # of a CPU that multiplies matrices in bfloat16 faster than it transforms: 0.4 to 0.97
PREFIX = "/winograd/"  # in the names of all that a rewrite adds, after the convolution's own
# By points, the windows k x k that leave tiles of m x m outputs, m = points + 1 - k of 2 and more.
WINDOWS_PX = {4: (3,), 6: (3, 4)}
LEAST_GFLOP, LEAST_INTENSITY = 2.0, 30.0  # below, an engine takes longer to load and is hardly faster
LEAST_SAVING = 2.0  # of multiplications; tiles that reach far past the edges lose it


def choose_points(precision: str, isa_flags: Sequence[str]) -> int | None:
    """Return how many points a graph's convolutions are rewritten with on a CPU, None where they are not."""
    if precision == "bf16" and any(flag in TILE_UNITS for flag in isa_flags):
        return None
    return POINTS.get(precision)


def is_worth_rewriting(
    filters: Sequence[int],
    sides: Sequence[int],
    point_count: int,
    *,
    least_gflop: float = LEAST_GFLOP,
    least_intensity: float = LEAST_INTENSITY,
) -> bool:
    """Tell whether a convolution has enough work.

    Args:
        filters: their shape; others than [c_out, c_in, k, k] are not rewritten.
        sides: of the outputs, h and w.
        point_count: of the transform, one of WINDOWS_PX.
        least_gflop: the least work on one image.
        least_intensity: the least c_in c_out / (c_in + c_out), the multiplications for each value that is moved, of a
            3 x 3 convolution; 16 / 9 of it for 4 x 4, whose tiles have 9 outputs where those of 3 x 3 have 16.
    """
    c_out, c_in, *window = filters
    if len(sides) != 2 or window[0] != window[1] or window[0] not in WINDOWS_PX[point_count]:
        return False
    h, w = sides
    tile_px = point_count + 1 - window[0]
    product_count = point_count**2 * -(-h // tile_px) * -(-w // tile_px)
    return (
        2e-9 * window[0] ** 2 * c_out * c_in * h * w >= least_gflop
        and c_in * c_out / (c_in + c_out) >= least_intensity * window[0] ** 2 / 9
        and window[0] ** 2 * h * w >= LEAST_SAVING * product_count
    )


def has_large_convolutions(model: Any, point_count: int) -> bool:
    """Tell whether a graph as OpenVINO has read it, with a fixed batch, may have convolutions worth rewriting."""
    for operation in model.get_ops():
        if operation.get_type_name() != "Convolution":
            continue
        filters, outputs = operation.input(1).get_partial_shape(), operation.output(0).get_partial_shape()
        if filters.is_dynamic or outputs.is_dynamic:
            return True
        if is_worth_rewriting(list(filters.to_shape()), list(outputs.to_shape())[2:], point_count):
            return True
    return False

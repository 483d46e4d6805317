"""A small typed stage, written without the onnx package, and what it computes in NumPy.

image [n, 3, h, w] -> convolution, ReLU, transposed convolution -> reconstruction, in the precision's type; and from the
ReLU a float32 island of a convolution and a sigmoid -> am1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# TensorProto.DataType
ONNX_TYPES = {"float32": 1, "float16": 10, "bfloat16": 16}
BORDERS = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
CHANNELS, SIDE = 16, 16
Array = NDArray[Any]


def to_bfloat16(values: Array) -> NDArray[np.uint16]:
    """Round float32 to bfloat16, to nearest even, as its bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: Array, dtype: str) -> Array:
    """Return values as a tensor of a type holds them: bfloat16 as its bits."""
    return to_bfloat16(values) if dtype == "bfloat16" else np.ascontiguousarray(values, dtype)


def widen(values: Array, dtype: str) -> Array:
    """Return a tensor's values as float64."""
    return (from_bfloat16(values) if dtype == "bfloat16" else values).astype(np.float64)


def make_weights(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Return weights that keep values near 1."""
    shapes = {"first": (CHANNELS, 3, 3, 3), "up": (CHANNELS, 3, 2, 2), "last": (1, CHANNELS, 1, 1)}
    scales = {"first": 27, "up": CHANNELS, "last": CHANNELS}
    return {n: (rng.standard_normal(s) / np.sqrt(scales[n])).astype(np.float32) for n, s in shapes.items()}


def find_types(border: str) -> dict[str, str]:
    """Return the type that each of the weights has in the file."""
    return {"first": border, "up": border, "last": "float32"}


def compute_stage(image: Array, given: Mapping[str, Array], border: str) -> dict[str, Array]:
    """Compute the stage in float64, with the weights as the file has them."""
    weights = {name: widen(narrow(given[name], dtype), dtype) for name, dtype in find_types(border).items()}
    n, _, h, w = image.shape
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    features = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weights["first"]), 0)
    up = np.einsum("nchw,coij->nohiwj", features, weights["up"]).reshape(n, 3, 2 * h, 2 * w)
    logits = np.einsum("nchw,oc->nohw", features, weights["last"][:, :, 0, 0])
    return {"reconstruction": up, "am1": 1 / (1 + np.exp(-logits))}


# Protobuf: a message is its fields, each a key (number << 3 | kind), and a varint (kind 0) or a length and bytes (2).


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def make_node(kind: str, inputs: list[str], output: str, **attributes: int | list[int]) -> bytes:
    node = b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, kind)
    for name, value in attributes.items():
        if isinstance(value, int):  # AttributeProto: name 1, i 3, ints 8, type 20 (INT 2, INTS 7)
            node += field(5, field(1, name) + field(3, value) + field(20, 2))
        else:
            node += field(5, field(1, name) + b"".join(field(8, one) for one in value) + field(20, 7))
    return node


def make_tensor(name: str, values: Array, dtype: str) -> bytes:
    dims = b"".join(field(1, size) for size in values.shape)
    return dims + field(2, ONNX_TYPES[dtype]) + field(8, name) + field(9, narrow(values, dtype).tobytes())


def make_value(name: str, dtype: str, sizes: list[int]) -> bytes:
    dims = field(1, field(2, "n")) + b"".join(field(1, field(1, size)) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, ONNX_TYPES[dtype]) + field(2, dims)))


def write_stage(path: Path, precision: str, weights: Mapping[str, Array]) -> Path:
    """Write the stage as ONNX and return the path."""
    border = BORDERS[precision]
    nodes = [
        make_node("Conv", ["image", "first"], "c1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make_node("Relu", ["c1"], "a1"),
        make_node("ConvTranspose", ["a1", "up"], "reconstruction", kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Cast", ["a1"], "a1_float32", to=ONNX_TYPES["float32"]),
        make_node("Conv", ["a1_float32", "last"], "c2", kernel_shape=[1, 1]),
        make_node("Sigmoid", ["c2"], "am1"),
    ]
    types = find_types(border)
    graph = b"".join(field(1, node) for node in nodes) + field(2, "stage")
    graph += b"".join(field(5, make_tensor(name, values, types[name])) for name, values in weights.items())
    graph += field(11, make_value("image", border, [3, SIDE, SIDE]))
    graph += field(12, make_value("reconstruction", border, [3, 2 * SIDE, 2 * SIDE]))
    graph += field(12, make_value("am1", "float32", [1, SIDE, SIDE]))
    # Opset 22 is the first whose convolutions take bfloat16; opset 17 is read by TensorRT 8.5 too.
    ir_version, opset = (10, 22) if precision == "bf16" else (8, 17)
    path.write_bytes(field(1, ir_version) + field(8, field(2, opset)) + field(7, graph))
    return path

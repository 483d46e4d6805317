"""Puts other tensors of an asset into a bundle's graphs and safetensors files; needs no PyTorch.

A graph that holds an asset has its tensors as initializers. A fresh export keeps their data in the asset's own file
(ONNX external data), where ops read them too: the bundle holds them once.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import BundleError, InputError, needs_extra

_ONNX_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.float32), 10: np.dtype(np.float16)}
_SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
_LENGTH_BYTES = 8


def replace_initializers(graph: bytes, names: Mapping[str, str], tensors: Mapping[str, FloatArray]) -> bytes:
    """Return an ONNX file with other values of some initializers, held inside the graph, in the type that they had.

    Args:
        graph: a serialised model.
        names: initializer -> tensor (`AssetSpec.in_graphs`).
        tensors: float32, by name, of the initializers' shapes.

    Raises:
        BundleError: no ONNX file, or one without these initializers.
        InputError: tensors of another shape, or not finite.
        MissingExtraError: the onnx package is not installed.
    """
    with needs_extra("another asset in a graph", "graphs"):
        import onnx
        from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(graph)
    except DecodeError as error:
        raise BundleError(f"the graph is no ONNX file ({error}). Export the bundle again.") from error
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, tensor in names.items():
        if name not in initializers or initializers[name].data_type not in _ONNX_TYPES:
            raise BundleError(f"the graph has no float initializer '{name}'. Export the bundle again.")
        old = initializers[name]
        values = _check_tensor(tensors, tensor, tuple(old.dims), _ONNX_TYPES[old.data_type])
        old.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return bytes(model.SerializeToString(deterministic=True))


def replace_tensors(content: bytes, tensors: Mapping[str, FloatArray]) -> bytes:
    """Return a safetensors file with other values of some tensors and the rest as it was: header, order and types.

    A graph whose initializers lie in this file, at fixed offsets, has the new ones then.

    Args:
        content: the file.
        tensors: float32, by name, of the shapes in the file.

    Raises:
        BundleError: no safetensors file of these tensors.
        InputError: tensors of another shape, or not finite.
    """
    start, header = _read_header(content, tensors)
    changed = bytearray(content)
    for name in tensors:
        entry = header[name]
        values = _check_tensor(tensors, name, tuple(entry["shape"]), _SAFETENSORS_TYPES[entry["dtype"]])
        first, last = entry["data_offsets"]
        changed[start + first : start + last] = values.tobytes()
    return bytes(changed)


def find_tensor_data(content: bytes, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return where a safetensors file keeps tensors: offset and length in bytes.

    Raises:
        BundleError: no safetensors file of these tensors.
    """
    start, header = _read_header(content, names)
    spans = {name: header[name]["data_offsets"] for name in names}
    return {name: (start + first, last - first) for name, (first, last) in spans.items()}


def _read_header(content: bytes, names: Iterable[str]) -> tuple[int, dict[str, Any]]:
    """Return where the data begins, and the header, checked for the tensors `names`."""
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    try:
        header: dict[str, Any] = json.loads(content[_LENGTH_BYTES:start])
        for name in names:
            entry = header[name]
            first, last = entry["data_offsets"]
            if last - first != math.prod(entry["shape"]) * _SAFETENSORS_TYPES[entry["dtype"]].itemsize:
                raise ValueError(f"{name} has {last - first} bytes")
            if not 0 <= first <= last <= len(content) - start:
                raise ValueError(f"{name} lies outside the file")
    except (ValueError, KeyError, TypeError) as error:
        wanted = ", ".join(names)
        raise BundleError(f"the asset's file: expected the tensors {wanted} ({error}). Export again.") from error
    return start, header


def _check_tensor(
    tensors: Mapping[str, FloatArray], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return tensors[name] as a dense array of `dtype`, checked against `shape`."""
    if name not in tensors:
        raise InputError(f"asset: expected the tensor '{name}', got {', '.join(tensors) or 'none'}.")
    values = np.asarray(tensors[name])
    if values.shape != shape:
        raise InputError(f"asset tensor '{name}': expected {list(shape)}, got {values.dtype} {list(values.shape)}.")
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, dtype)
    if not np.isfinite(rounded).all():
        raise InputError(
            f"asset tensor '{name}': expected finite values, got some that are not finite as {dtype}. "
            "Check the image, or export the bundle with --weights fp32."
        )
    return rounded

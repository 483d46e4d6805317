"""Puts another reference into a bundle's fused graph and into its reference.safetensors; needs no PyTorch.

fused.onnx has the reference's features as initializers `reference_3` to `reference_5`. A fresh export keeps their data
in reference.safetensors (ONNX external data), where the staged plan reads them too: the bundle holds them once.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import BundleError, InputError, needs_extra

FloatArray = NDArray[np.float32]

LEVELS = (3, 4, 5)
_ONNX_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.float32), 10: np.dtype(np.float16)}
_SAFETENSORS_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16)}
_LENGTH_BYTES = 8


def replace_reference(fused: bytes, features: Mapping[str, FloatArray]) -> bytes:
    """Return fused.onnx with another reference, held inside the graph, rounded to the type that it had.

    Args:
        fused: a serialised fused.onnx.
        features: f3, f4, f5 of the new reference image: float32 [1, c, h, w].

    Raises:
        BundleError: no ONNX file, or one without the three initializers.
        InputError: features of another shape, or not finite.
        MissingExtraError: the onnx package is not installed.
    """
    with needs_extra("another reference in the fused graph", "graphs"):
        import onnx
        from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(fused)
    except DecodeError as error:
        raise BundleError(f"the fused graph is no ONNX file ({error}). Export the bundle again.") from error
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for level in LEVELS:
        name = f"reference_{level}"
        if name not in initializers or initializers[name].data_type not in _ONNX_TYPES:
            raise BundleError(f"the fused graph has no float initializer '{name}'. Export the bundle again.")
        old = initializers[name]
        values = _check_features(features, f"f{level}", tuple(old.dims), _ONNX_TYPES[old.data_type])
        old.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return bytes(model.SerializeToString(deterministic=True))


def replace_reference_file(old: bytes, features: Mapping[str, FloatArray]) -> bytes:
    """Return reference.safetensors with other features and everything else as it was: header, order and types.

    A graph whose reference lies in this file, at fixed offsets, has the new one then.

    Args:
        old: the bytes of a bundle's reference.safetensors.
        features: f3, f4, f5 of the new reference image: float32 [1, c, h, w].

    Raises:
        BundleError: no safetensors file of f3, f4 and f5.
        InputError: features of another shape, or not finite.
    """
    start, header = _read_header(old)
    content = bytearray(old)
    for level in LEVELS:
        entry = header[f"f{level}"]
        values = _check_features(features, f"f{level}", tuple(entry["shape"]), _SAFETENSORS_TYPES[entry["dtype"]])
        first, last = entry["data_offsets"]
        content[start + first : start + last] = values.tobytes()
    return bytes(content)


def find_reference_data(reference: bytes) -> dict[str, tuple[int, int]]:
    """Return where reference.safetensors keeps f3, f4 and f5: offset and length in bytes.

    Raises:
        BundleError: no safetensors file of f3, f4 and f5.
    """
    start, header = _read_header(reference)
    spans = {f"f{level}": header[f"f{level}"]["data_offsets"] for level in LEVELS}
    return {name: (start + first, last - first) for name, (first, last) in spans.items()}


def _read_header(content: bytes) -> tuple[int, dict[str, Any]]:
    """Return where the data begins, and the header, checked for the three tensors."""
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    try:
        header: dict[str, Any] = json.loads(content[_LENGTH_BYTES:start])
        for level in LEVELS:
            entry = header[f"f{level}"]
            first, last = entry["data_offsets"]
            if last - first != int(np.prod(entry["shape"])) * _SAFETENSORS_TYPES[entry["dtype"]].itemsize:
                raise ValueError(f"f{level} has {last - first} bytes")
            if not 0 <= first <= last <= len(content) - start:
                raise ValueError(f"f{level} lies outside the file")
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"reference.safetensors does not hold f3, f4 and f5 ({error}). Export the bundle again."
        ) from error
    return start, header


def _check_features(
    features: Mapping[str, FloatArray], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return features[name] as a dense array of `dtype`, checked against `shape`."""
    if name not in features:
        raise InputError(f"the reference's features are {', '.join(features) or 'none'}; f3, f4 and f5 are taken.")
    values = np.asarray(features[name])
    if values.shape != shape:
        raise InputError(f"reference feature {name} is {values.dtype} {list(values.shape)}; {list(shape)} is taken.")
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(values, dtype)
    if not np.isfinite(rounded).all():
        raise InputError(
            f"reference feature {name} holds values that are not finite as {dtype}; the encoder's features of a good "
            "image are taken. Check the image, or export the bundle with --weights fp32."
        )
    return rounded

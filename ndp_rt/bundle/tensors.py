"""Reads safetensors files with the library, or with NumPy alone on a GPU machine without it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import BundleError

LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "U16": np.uint16,
}


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file, by name.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        return read_with_numpy(path)
    try:
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _refuse(path, error) from error
    return tensors


def read_with_numpy(path: Path) -> dict[str, NDArray[Any]]:
    """Return the same as `read_tensors`: 8 bytes of header length, the header as JSON, the tensors' bytes.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        if len(content) < 8 or length > min(LONGEST_HEADER_BYTES, len(content) - 8):
            raise ValueError(f"a header of {length} bytes in a file of {len(content)}")
        header = json.loads(content[8 : 8 + length])
        data = memoryview(content)[8 + length :]
        return {name: _read_tensor(data, entry) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refuse(path, error) from error


def _read_tensor(data: memoryview, entry: dict[str, Any]) -> NDArray[Any]:
    dtype, shape, (start, end) = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"]), entry["data_offsets"]
    if not 0 <= start <= end <= len(data) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{entry['dtype']} {list(shape)} at {start} to {end} of {len(data)} bytes")
    return np.frombuffer(data[start:end], dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def _refuse(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path}: cannot be read as safetensors ({error}). Export the bundle again.")

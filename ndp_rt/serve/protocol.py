"""What the Open Inference Protocol carries, whichever way it comes: images in; scores, decisions and maps out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError
from ndp_rt.images.checks import Image
from ndp_rt.pipeline.sinks import describe_defect
from ndp_rt.result import Result

DTYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
}
BYTES = "BYTES"
IMAGE, ENCODED = "image", "encoded"
INPUTS = {IMAGE: ("UINT8", (-1, -1, -1, 3)), ENCODED: (BYTES, (-1,))}
OUTPUTS = {
    "score": ("FP64", (-1,)),
    "threshold": ("FP64", (-1,)),
    "is_defect": ("BOOL", (-1,)),
    "defects": (BYTES, (-1,)),
    "map": ("FP32", (-1, -1, -1)),
    "mask": ("BOOL", (-1, -1, -1)),
}
DEFAULT_OUTPUTS = ("score", "threshold", "is_defect", "defects")
OF_A_MAP = {"map", "mask"}
LONGEST_SIDE = 2**31 - 1
LONGEST_TIME_US = 10**15
IMAGE_WORDS = f"'{IMAGE}' (UINT8 or UINT16) or '{ENCODED}' (BYTES)"


@dataclass(frozen=True, kw_only=True)
class InputTensor:
    """A tensor as it came.

    Attributes:
        data: the elements' bytes, little endian and dense; of BYTES the elements; or what JSON has.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | list[Any]


@dataclass(frozen=True, kw_only=True)
class OutputTensor:
    """A tensor to send: an array, or of BYTES the elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[bytes]


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        images: arrays as `Inspector.inspect` takes them, or the bytes of image files.
        outputs: names of OUTPUTS.
        priority: 1 comes first, then 2, and so on; 0: the service's default.
        timeout_s: after which nobody waits for the answer; None: no limit.
    """

    id: str = ""
    images: Sequence[Image | bytes]
    outputs: Sequence[str] = DEFAULT_OUTPUTS
    priority: int = 0
    timeout_s: float | None = None

    @property
    def needs_map(self) -> bool:
        """Whether a map has to be made for an output."""
        return not OF_A_MAP.isdisjoint(self.outputs)


@dataclass(frozen=True, kw_only=True)
class InferAnswer:
    """What a client gets."""

    model: str
    version: str
    id: str
    outputs: Sequence[OutputTensor] = field(default_factory=list)


def make_request(
    tensors: Sequence[InputTensor], outputs: Sequence[str], parameters: Mapping[str, Any], id: str
) -> InferRequest:
    """Return a request, checked.

    Args:
        tensors: one of INPUTS.
        outputs: names; none: DEFAULT_OUTPUTS.
        parameters: Triton's `priority`, and `timeout` in microseconds; others are left alone.
        id: given back with the answer.

    Raises:
        InputError: anything else than the protocol and this service have.
    """
    for name in outputs:
        if name not in OUTPUTS:
            raise InputError(f"outputs: expected some of {', '.join(OUTPUTS)}, got {name!r}.")
    numbers = {name: parameters.get(name, 0) for name in ("priority", "timeout")}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LONGEST_TIME_US:
            raise InputError(f"parameter {name}: expected a whole number from 0 to {LONGEST_TIME_US}.")
    return InferRequest(
        id=id,
        images=read_images(tensors),
        outputs=tuple(dict.fromkeys(outputs)) or DEFAULT_OUTPUTS,
        priority=numbers["priority"],
        timeout_s=numbers["timeout"] * 1e-6 or None,
    )


def read_images(tensors: Sequence[InputTensor]) -> list[Image | bytes]:
    """Return the images of a request.

    Raises:
        InputError: not one tensor of INPUTS, or its type, shape or number of values is another.
    """
    if len(tensors) != 1 or tensors[0].name not in INPUTS:
        names = ", ".join(repr(one.name) for one in tensors) or "none"
        raise InputError(f"inputs: expected one, {IMAGE_WORDS}, got {names}.")
    one = tensors[0]
    if not 1 <= len(one.shape) <= 4 or not all(1 <= side <= LONGEST_SIDE for side in one.shape):
        raise InputError(f"input '{one.name}': expected a shape of one to four numbers from 1 to {LONGEST_SIDE}.")
    count = math.prod(one.shape)
    if one.name == ENCODED:
        return [*_read_elements(one, count)]
    if one.datatype not in ("UINT8", "UINT16"):
        raise InputError(f"input '{IMAGE}': expected datatype UINT8 or UINT16, got {one.datatype}.")
    values = _read_values(one, count).reshape(one.shape)
    if len(one.shape) == 4 and one.shape[3] in (1, 3):
        return [*values]
    if len(one.shape) == 2 or (len(one.shape) == 3 and one.shape[2] in (1, 3)):
        return [values]
    raise InputError(
        f"input '{IMAGE}': expected shape [h, w], [h, w, 1 or 3] or [n, h, w, 1 or 3], got {list(one.shape)}."
    )


def _read_elements(one: InputTensor, count: int) -> list[bytes]:
    if one.datatype != BYTES or len(one.shape) > 2:
        raise InputError(
            f"input '{ENCODED}': expected datatype BYTES and shape [n], got {one.datatype} {list(one.shape)}."
        )
    found = one.data if isinstance(one.data, list) else split_elements(one.data, count)
    if len(found) != count or not all(isinstance(element, bytes) for element in found):
        raise InputError(f"input '{ENCODED}': expected {count} image files, got {len(found)} elements.")
    return found


def split_elements(data: bytes | memoryview, count: int) -> list[bytes]:
    """Return the elements of BYTES, each behind its length in four bytes; one more than `count` at most.

    Raises:
        InputError: the data ends within one.
    """
    found, start = list[bytes](), 0
    while start < len(data) and len(found) <= count:
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if end > len(data):
            raise InputError(f"input '{ENCODED}': expected {end - start} more bytes, got {len(data) - start}.")
        found.append(bytes(data[start + 4 : end]))
        start = end
    return found


def join_elements(elements: Sequence[bytes]) -> bytes:
    """Return the elements of BYTES as one piece."""
    return b"".join(len(one).to_bytes(4, "little") + one for one in elements)


def _read_values(one: InputTensor, count: int) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[one.datatype])
    if not isinstance(one.data, list):
        if len(one.data) != count * dtype.itemsize:
            raise InputError(
                f"input '{one.name}': expected {count * dtype.itemsize} bytes for {one.datatype} {list(one.shape)}, "
                f"got {len(one.data)}."
            )
        return np.frombuffer(one.data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    try:
        found = np.array(one.data)
    except (ValueError, OverflowError) as error:  # lists of several lengths
        raise InputError(f"input '{one.name}': expected numbers, all rows alike, got others.") from error
    limits = np.iinfo(one.datatype.lower())
    if found.dtype.kind not in "iu" or found.size != count or found.min() < limits.min or found.max() > limits.max:
        raise InputError(
            f"input '{one.name}': expected {count} whole numbers from {limits.min} to {limits.max}, got "
            f"{found.size} of type {found.dtype}, or others than that."
        )
    return found.astype(dtype)


def make_outputs(results: Sequence[Result], names: Sequence[str]) -> list[OutputTensor]:
    """Return what was asked for of each result, the results along the first axis.

    Raises:
        InputError: maps of images of several sizes.
    """
    return [_make_output(results, name) for name in names]


def _make_output(results: Sequence[Result], name: str) -> OutputTensor:
    datatype, count = OUTPUTS[name][0], len(results)
    if name == "defects":
        texts = [json.dumps([describe_defect(one) for one in result.defects]).encode() for result in results]
        return OutputTensor(name=name, datatype=datatype, shape=(count,), values=texts)
    if name in OF_A_MAP:
        pictures = [one.anomaly_map if name == "map" else one.make_mask() for one in results]
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            raise InputError(
                f"output '{name}': expected images of one size, got {sorted(sizes)}. Send them one by one."
            )
        values = np.ascontiguousarray(np.stack(pictures))
    else:
        values = np.array([getattr(one, name) for one in results], DTYPES[datatype])
    return OutputTensor(name=name, datatype=datatype, shape=values.shape, values=values)

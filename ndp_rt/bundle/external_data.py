"""Finds where an ONNX file keeps its tensors, without the onnx package (86 ms to import, on every opening).

Only the few message fields of onnx.proto3 that lead to `TensorProto.external_data` are walked; field numbers are fixed
for ever by the protobuf rules.
"""

from collections.abc import Iterator

from ndp_rt.errors import InputError

# message -> {field number: message it holds}
FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_MAX_DEPTH = 64
_BYTES, _VARINT, _FIXED64, _FIXED32 = 2, 0, 1, 5


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise InputError("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _walk_fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of every length-delimited field; numbers are skipped."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            length, at = _read_varint(data, at)
            if at + length > len(data):
                raise InputError("a field is cut short")
            yield key >> 3, data[at : at + length]
            at += length
        else:
            raise InputError(f"wire type {kind} is unknown")


def _walk(data: memoryview, message: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise InputError(f"graphs are nested more than {_MAX_DEPTH} deep")
    if message == "entry":
        pair = {number: bytes(content) for number, content in _walk_fields(data)}
        if pair.get(1) == b"location":
            yield pair.get(2, b"").decode("utf-8", "replace")
        return
    inner = FIELDS[message]
    for number, content in _walk_fields(data):
        if number in inner:
            yield from _walk(content, inner[number], depth + 1)


def list_external_locations(model: bytes) -> set[str]:
    """Return the distinct `location` values of a serialised ModelProto's external tensors.

    Raises:
        InputError: the bytes are no protobuf message.
    """
    return set(_walk(memoryview(model), "model", 0))

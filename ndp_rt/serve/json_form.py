"""The protocol over HTTP: JSON, and tensors as binary data behind it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ndp_rt.errors import InputError
from ndp_rt.serve.protocol import (
    BYTES,
    InferAnswer,
    InferRequest,
    InputTensor,
    OutputTensor,
    join_elements,
    make_request,
)

HEADER = "inference-header-content-length"
SIZE = "binary_data_size"
LONGEST_NUMBER = 20  # digits


def parse_request(body: bytes, header: str | None) -> tuple[InferRequest, set[str]]:
    """Return a request, and which of its outputs are to be sent as binary data.

    Args:
        body: of the HTTP request.
        header: what HEADER says: how many bytes of the body are JSON; None: all.

    Raises:
        InputError: anything that is not the protocol's.
    """
    length = find_json_bytes(body, header)
    document = read_object(body[:length])
    rest = memoryview(body)[length:]
    tensors = []
    for entry in read_list(document, "inputs"):
        tensor, rest = _read_tensor(entry, rest)
        tensors.append(tensor)
    if len(rest):
        raise InputError(f"body: expected no data behind the inputs', got {len(rest)} bytes more.")
    parameters = read_parameters(document)
    asked = {read_text(entry, "name"): read_parameters(entry) for entry in read_list(document, "outputs")}
    request = make_request(tensors, list(asked), parameters, str(document.get("id") or ""))
    default = bool(parameters.get("binary_data_output"))
    return request, {name for name in request.outputs if asked.get(name, {}).get("binary_data", default)}


def find_json_bytes(body: bytes, header: str | None) -> int:
    """Return how many bytes of a body are JSON.

    Raises:
        InputError: the header is no number, or larger than the body.
    """
    if header is None:
        return len(body)
    if not (header.isascii() and header.isdigit() and len(header) < LONGEST_NUMBER) or int(header) > len(body):
        raise InputError(f"{HEADER}: expected a number up to the body's {len(body)} bytes.")
    return int(header)


def read_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"body: expected JSON, got something else ({type(error).__name__}).") from error
    if not isinstance(found, dict):
        raise InputError(f"body: expected a JSON object, got {type(found).__name__}.")
    return found


def read_list(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects; none where it is missing.

    Raises:
        InputError: it is something else.
    """
    found = document.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InputError(f"{name}: expected a list of objects, got something else.")
    return found


def read_parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output.

    Raises:
        InputError: they are no object.
    """
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise InputError(f"parameters: expected an object, got {type(found).__name__}.")
    return found


def read_text(entry: Mapping[str, Any], name: str) -> str:
    """Return a text.

    Raises:
        InputError: it is missing or something else.
    """
    found = entry.get(name)
    if not isinstance(found, str):
        raise InputError(f"{name}: expected a text, got {type(found).__name__}.")
    return found


def _read_tensor(entry: Mapping[str, Any], rest: memoryview) -> tuple[InputTensor, memoryview]:
    """Return an input, and what is left of the binary data."""
    name, datatype, shape = read_text(entry, "name"), read_text(entry, "datatype"), entry.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int for side in shape):
        raise InputError(f"input '{name}': expected a shape, a list of whole numbers, got something else.")
    size = read_parameters(entry).get(SIZE)
    data: Any = entry.get("data")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise InputError(f"input '{name}': expected {SIZE} of at most {len(rest)}, which are there, got {size!r}.")
        data, rest = rest[:size], rest[size:]
    elif datatype == BYTES:
        raise InputError(f"input '{name}': expected BYTES as binary data ({SIZE}), got JSON, which has texts alone.")
    elif not isinstance(data, list):
        raise InputError(f"input '{name}': expected data as a list, or as binary data ({SIZE}), got neither.")
    return InputTensor(name=name, datatype=datatype, shape=tuple(shape), data=data), rest


def write_answer(answer: InferAnswer, binary: set[str]) -> tuple[bytes, int | None]:
    """Return a body, and how many bytes of it are JSON; None: all.

    Args:
        answer: to send.
        binary: names of the outputs that go as binary data.
    """
    blobs: list[bytes] = []
    entries = []
    for one in answer.outputs:
        entry: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
        if one.name in binary:
            blobs.append(pack(one))
            entry["parameters"] = {SIZE: len(blobs[-1])}
        elif isinstance(one.values, list):
            entry["data"] = [element.decode() for element in one.values]
        else:
            entry["data"] = one.values.ravel().tolist()
        entries.append(entry)
    document = {"model_name": answer.model, "model_version": answer.version, "id": answer.id, "outputs": entries}
    text = json.dumps(document).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def pack(one: OutputTensor) -> bytes:
    """Return a tensor's values as binary data."""
    return join_elements(one.values) if isinstance(one.values, list) else one.values.tobytes()


def describe_tensors(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> list[dict[str, Any]]:
    """Return names, types and shapes as metadata has them."""
    return [{"name": name, "datatype": kind, "shape": list(shape)} for name, (kind, shape) in tensors.items()]

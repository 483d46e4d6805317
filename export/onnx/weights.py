"""The file weights.bin that all graphs of a bundle share, each tensor in it once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, numpy_helper

WEIGHTS_FILE = "weights.bin"
ALIGNMENT_BYTES = 64  # of a cache line and of AVX-512: runtimes may map the file and use it in place
SMALLEST_BYTES = 1024  # smaller tensors, biases above all, stay inside the graph


class WeightStore:
    """Collects the content of weights.bin: equal tensors share their bytes."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._offsets: dict[bytes, int] = {}

    def add(self, data: bytes) -> int:
        """Return the offset at which `data` lies, after adding it if it isn't there."""
        key = hashlib.sha256(data).digest()
        if key not in self._offsets:
            self._content.extend(bytes(-len(self._content) % ALIGNMENT_BYTES))
            self._offsets[key] = len(self._content)
            self._content.extend(data)
        return self._offsets[key]

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return bytes(self._content)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a tensor's bytes in a file of the bundle."""

    file: str
    offset: int
    length: int


def move_weights(model: ModelProto, store: WeightStore, places: Mapping[str, Place]) -> None:
    """Move a graph's large initializers out of it.

    Args:
        model: changed in place.
        store: takes every initializer from SMALLEST_BYTES on.
        places: for initializers, by name, that lie in another file already; those must have the length they say.
    """
    for tensor in model.graph.initializer:
        data = numpy_helper.to_array(tensor).tobytes()
        place = places.get(tensor.name)
        if place is None and len(data) >= SMALLEST_BYTES:
            place = Place(file=WEIGHTS_FILE, offset=store.add(data), length=len(data))
        if place is not None:
            if place.length != len(data):
                raise ValueError(f"{tensor.name} has {len(data)} bytes, {place.file} holds {place.length} for it")
            _set_external(tensor, place)


def _set_external(tensor: TensorProto, place: Place) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", place.file), ("offset", place.offset), ("length", place.length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)

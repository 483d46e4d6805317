"""JSON objects as dataclasses: written field by field, and read with every value checked against its field's type."""

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from types import UnionType
from typing import Any, ClassVar, TypeVar, cast, get_args, get_origin, get_type_hints

from ndp_rt.errors import BundleError
from ndp_rt.program.tensors import TensorSpec

EMPTY: tuple[object, ...] = (None, "", (), {})
Json = dict[str, Any]
Value = TypeVar("Value")
Data = TypeVar("Data", bound="JsonData")


def optional(default: Any) -> Any:
    """Return a field of a `JsonData` that the JSON leaves out where it is one of EMPTY."""
    kind = {"default_factory": dict} if default is dict else {"default": default}
    return dataclasses.field(metadata={"is_optional": True}, **kind)


class JsonData:
    """A dataclass that is an object in a manifest: a key for each field, of its name or of its metadata's `key`."""

    where: ClassVar[str]  # what messages call such an object

    def to_json(self) -> Json:
        document: Json = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value not in EMPTY or not field.metadata.get("is_optional"):
                document[field.metadata.get("key", field.name)] = _to_value(value)
        return document

    @classmethod
    def from_json(cls: type[Data], document: object) -> Data:
        """Read what `to_json` wrote.

        Raises:
            BundleError: a value is missing, or of another type.
            InputError: a value is out of range.
        """
        given, types = {}, _find_types(cast(Hashable, cls))
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            key = field.metadata.get("key", field.name)
            if not field.metadata.get("is_optional") or (isinstance(document, Mapping) and key in document):
                given[field.name] = take_as(document, key, types[field.name], cls.where)
        return cls(**given)


@functools.cache  # as slow as reading everything else
def _find_types(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _to_value(value: Any) -> Any:
    if isinstance(value, JsonData):
        return value.to_json()
    if isinstance(value, TensorSpec):
        return value.to_dims()
    if isinstance(value, Mapping):
        return {name: _to_value(one) for name, one in value.items()}
    return [_to_value(one) for one in value] if isinstance(value, tuple) else value


def take_as(document: object, key: Any, kind: Any, where: str) -> Any:
    """Return document[key] as a value of `kind`: a field's type, such as `Mapping[str, TensorSpec]`.

    Raises:
        BundleError: it is missing, or of another type.
    """
    inner, place = get_args(kind), f"{where}.{key}"
    if kind is TensorSpec:
        return TensorSpec.from_dims(str(key), take(document, key, object, where))
    if isinstance(kind, type) and issubclass(kind, JsonData):
        return kind.from_json(take(document, key, dict, where))
    if get_origin(kind) is UnionType and isinstance(inner[0], type) and issubclass(inner[0], JsonData):  # or None
        value = take(document, key, (dict, type(None)), where)
        return None if value is None else inner[0].from_json(value)
    if get_origin(kind) is Mapping:
        entries = take(document, key, dict, where)
        return {str(name): take_as(entries, name, inner[1], place) for name in entries}
    if get_origin(kind) is tuple:
        numbered = dict(enumerate(take(document, key, list, where)))
        return tuple(take_as(numbered, number, inner[0], place) for number in numbered)
    if kind is Any:
        return take(document, key, object, where)
    kinds = inner or (kind,)
    is_float = float in kinds and int not in kinds
    value = take(document, key, (int, *kinds) if is_float else kinds, where)
    if not is_float or value is None:
        return value
    try:
        return float(value)
    except OverflowError as error:  # of an integer
        raise BundleError(
            f"manifest: {place}: expected a finite number, got one of {value.bit_length()} bits."
        ) from error


def take(document: object, key: Any, kind: type[Value] | tuple[type[Value], ...], where: str) -> Value:
    """Return document[key], of `kind`; a bool never passes for a number.

    Raises:
        BundleError: it is missing, or of another type.
    """
    if not isinstance(document, Mapping) or key not in document:
        raise BundleError(f"manifest: expected '{key}' in {where}, got none. Export the bundle again.")
    value = document[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not {bool, object} & set(kinds)):
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise BundleError(f"manifest: {where}.{key}: expected {names}, got {type(value).__name__} {value!r:.60}.")
    return value

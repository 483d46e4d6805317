"""Reading of JSON values that somebody else may have written: each has to be there, and of the expected type."""

from collections.abc import Mapping
from typing import Any, TypeVar

from ndp_rt.errors import BundleError

Json = dict[str, Any]
Value = TypeVar("Value")


def take(document: object, key: str, kind: type[Value] | tuple[type[Value], ...], where: str) -> Value:
    """Return document[key], of `kind`; a bool never passes for a number.

    Raises:
        BundleError: it is missing, or of another type.
    """
    if not isinstance(document, Mapping) or key not in document:
        raise BundleError(f"manifest: expected '{key}' in {where}, got none. Export the bundle again.")
    value = document[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise BundleError(f"manifest: {where}.{key}: expected {names}, got {type(value).__name__} {value!r:.60}.")
    return value

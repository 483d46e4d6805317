"""Ops by name: the folders of kernels/ that hold an op.py, then what other packages bring as entry points."""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import cast

from ndp_rt import kernels
from ndp_rt.errors import InputError
from ndp_rt.kernels.op import Op

GROUP = "ndp_rt.ops"  # entry points "NAME = MODULE:OBJECT", where OBJECT is an `Op`


def find_op(name: str) -> Op:
    """Return the op `name`; built-in ones without looking at what is installed.

    Raises:
        InputError: there is none of that name, or its package cannot be imported.
    """
    if name in _list_own():
        return cast(Op, importlib.import_module(f"{kernels.__name__}.{name}.op").OP)
    return _load_foreign(name)


@cache
def _list_own() -> frozenset[str]:
    packages = [info.name for info in pkgutil.iter_modules(kernels.__path__) if info.ispkg]
    return frozenset(name for name in packages if find_spec(f"{kernels.__name__}.{name}.op") is not None)


@cache  # what is installed takes milliseconds to read; errors are not kept
def _load_foreign(name: str) -> Op:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted({*_list_own(), *found}))
        raise InputError(f"op: expected one of {known}, got '{name}'. Install the package that brings it.")
    try:
        return cast(Op, found[name].load())
    except (ImportError, AttributeError) as error:
        raise InputError(f"op '{name}' of {found[name].value} cannot be loaded: {error}. Install it again.") from error

"""Finds model families: folders of `export/models` first, then entry points of the group `ndp_rt.families`.

A family's package is cheap to import and holds its `Family` as FAMILY. A package from elsewhere names its own:

    [project.entry-points."ndp_rt.families"]
    toy = "toy_family.family:FAMILY"
"""

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points

from ndp_rt.errors import InputError
from ndp_rt.export import models
from ndp_rt.export.models.family import Family

GROUP = "ndp_rt.families"
DEFAULT_FAMILY = "memseg"
FIRST_FAMILY = "ndpnet"  # of runs from before there was another


def list_families() -> tuple[str, ...]:
    """Return the names of all families, those of this package first."""
    own = [module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg]
    return tuple(dict.fromkeys([*own, *sorted(entry.name for entry in entry_points(group=GROUP))]))


def find_family(name: str) -> Family:
    """Return the family of that name.

    Raises:
        InputError: there is none, or what an entry point names is no family.
    """
    known = list_families()
    if name not in known:
        raise InputError(
            f"family: expected {' or '.join(known)}, got '{name}'. Install the package that brings it, or choose "
            "another."
        )
    if any(module.name == name and module.ispkg for module in pkgutil.iter_modules(models.__path__)):
        family = import_module(f"{models.__name__}.{name}").FAMILY
    else:
        family = next(entry for entry in entry_points(group=GROUP) if entry.name == name).load()
    if not isinstance(family, Family):
        raise InputError(f"family '{name}': expected a {Family.__qualname__}, got {type(family).__name__}.")
    return family

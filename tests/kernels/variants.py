"""Every kernel that a launcher may ask for."""

import importlib
import pkgutil

from ndp_rt.kernels import launch
from ndp_rt.kernels.flags import Variant


def list_variants() -> list[Variant]:
    """Return the VARIANTS of every launch module."""
    modules = [
        importlib.import_module(f"{launch.__name__}.{info.name}") for info in pkgutil.iter_modules(launch.__path__)
    ]
    return [variant for module in modules for variant in getattr(module, "VARIANTS", ())]


def describe(variant: Variant) -> str:
    """Return a short name: the entry, and the defines where there are any."""
    return ",".join((variant.entry, *(f"{name}={value}" for name, value in sorted(variant.defines.items()))))

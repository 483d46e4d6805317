"""Every kernel that a launcher may ask for."""

import importlib
import pkgutil

from ndp_rt import kernels
from ndp_rt.kernels.flags import Variant


def list_variants() -> list[Variant]:
    """Return the VARIANTS of every launch module."""
    folders = [info.name for info in pkgutil.iter_modules(kernels.__path__) if info.ispkg]
    modules = [importlib.import_module(f"{kernels.__name__}.{name}.launch") for name in folders]
    return [variant for module in modules for variant in module.VARIANTS]


def describe(variant: Variant) -> str:
    """Return a short name: the entry, and the defines where there are any."""
    return ",".join((variant.entry, *(f"{name}={value}" for name, value in sorted(variant.defines.items()))))

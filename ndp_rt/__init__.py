"""ndp-rt: surface-defect inspection with NDP-Net.

    from ndp_rt import Inspector

The names below are loaded when they are first used, so that importing the package stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndp_rt import errors
    from ndp_rt.bundle.open import Bundle, open_bundle
    from ndp_rt.decide.regions import Defect
    from ndp_rt.errors import NdpRtError
    from ndp_rt.images.read import read_image
    from ndp_rt.importing.run import import_onnx
    from ndp_rt.importing.terms import ImportSettings
    from ndp_rt.inspector import Inspector
    from ndp_rt.result import Result

__version__ = "0.2.0"  # pyproject.toml, CMake and the C library read it here; pkgconfig/ndp_rt.pc repeats it

_HOMES = {
    "Bundle": "ndp_rt.bundle.open",
    "Defect": "ndp_rt.decide.regions",
    "ImportSettings": "ndp_rt.importing.terms",
    "Inspector": "ndp_rt.inspector",
    "NdpRtError": "ndp_rt.errors",
    "Result": "ndp_rt.result",
    "import_onnx": "ndp_rt.importing.run",
    "open_bundle": "ndp_rt.bundle.open",
    "read_image": "ndp_rt.images.read",
}

__all__ = [
    "Bundle",
    "Defect",
    "ImportSettings",
    "Inspector",
    "NdpRtError",
    "Result",
    "__version__",
    "errors",
    "import_onnx",
    "open_bundle",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("ndp_rt.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'ndp_rt' has no attribute '{name}'; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Lists what TensorRT's real Python bindings hold: python dump_bindings.py WHEEL_FOLDER STUB_FOLDER MAJOR > JSON.

Runs alone, in any Python that the bindings are for. Every name has a list: what it is ("class", "value", "property",
"settable" or "method"), and then the signatures that pybind11 wrote into its docstring.
"""

import ctypes
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")


def load_bindings(folder: str, stubs: str, major: str) -> Any:
    """Import the bindings that lie in a folder, over the stubs."""
    for name in LIBRARIES:
        ctypes.CDLL(str(Path(stubs) / f"lib{name}.so.{major}"), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, folder)
    (package,) = (name for name in ("tensorrt_bindings", "tensorrt") if (Path(folder) / name).is_dir())
    return importlib.import_module(package)


def list_signatures(value: Any, name: str) -> list[str]:
    """Return the lines of a docstring that are signatures."""
    lines = [line.strip() for line in (inspect.getdoc(value) or "").splitlines()]
    marks = (f"{name}(", "(")
    found = [line.partition(". ")[2] if line[:1].isdigit() else line for line in lines]
    return [line for line in found if line.startswith(marks) and "->" in line]


def dump(owner: Any, prefix: str, into: dict[str, list[str]]) -> None:
    for name in dir(owner):
        if name.startswith("__") and name not in ("__init__", "__version__"):
            continue
        full = f"{prefix}{name}"
        raw = inspect.getattr_static(owner, name)
        if isinstance(raw, type):
            into[full] = ["class"]
            if prefix.count(".") < 2 and not full.endswith("Severity.Severity"):
                dump(raw, f"{full}.", into)
        elif isinstance(raw, property):
            into[full] = ["property" if raw.fset is None else "settable", *list_signatures(raw.fget, name)]
        elif callable(getattr(owner, name, None)):
            into[full] = ["method", *list_signatures(getattr(owner, name), name)]
        else:
            into[full] = ["value"]


def main() -> None:
    found: dict[str, list[str]] = {}
    module = load_bindings(*sys.argv[1:4])
    dump(module, "", found)
    try:
        module.Builder(module.Logger())
    except TypeError as error:
        found["a builder without a driver"] = [str(error)]
    json.dump({"version": module.__version__, "names": found}, sys.stdout)


if __name__ == "__main__":
    main()

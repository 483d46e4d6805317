"""Finds the C library of an installation, and the flags that programs are built with."""

import re
from pathlib import Path

from ndp_rt.capi.build import (
    BRIDGE_MODULE,
    BRIDGE_NAME,
    FOLDER,
    HEADER,
    INCLUDE,
    LIBRARY_NAME,
    PYTHON_VERSION,
    SONAME,
    check_tools,
)
from ndp_rt.errors import MissingExtraError

PKGCONFIG, CMAKE, EXAMPLES = FOLDER / "pkgconfig", FOLDER / "cmake", FOLDER / "examples"
DATA = FOLDER.parent / "data"
DEMO, DEMO_IMAGES = DATA / "demo.ndp", DATA / "demo_pnm"
TAG = re.compile(re.escape(BRIDGE_MODULE).encode() + rb"\.([\w-]+)\.so")  # cpython-311-x86_64-linux-gnu


def find_problem(folder: Path | None = None) -> str | None:
    """Return why the library cannot be used with this Python, or None.

    Args:
        folder: where it lies; None: in this package.
    """
    folder = FOLDER if folder is None else folder
    library = folder / LIBRARY_NAME
    if not library.is_file():
        return f"{LIBRARY_NAME} is not built"
    try:
        found = TAG.search(library.read_bytes())
    except OSError as error:
        return f"{library} cannot be read ({error.strerror or error})"
    if found is None:
        return f"{library} is not a library of ndp-rt"
    if found[0].decode() != BRIDGE_NAME:
        return f"{library} is built for {found[1].decode()}, and this is Python {PYTHON_VERSION}"
    missing = [name for name in (BRIDGE_NAME, SONAME) if not (folder / name).is_file()]
    return f"{missing[0]} is missing beside {library}" if missing else None


def find_remedy() -> str:
    """Return the command that builds the library, and what it needs first."""
    command = "ndp-rt capi build"
    try:
        check_tools()
    except MissingExtraError as error:
        return f"{command}; before that: {error}"
    return command


def list_compile_flags() -> list[str]:
    """Return what a source that includes the header is compiled with."""
    return [f"-I{INCLUDE}"]


def list_link_flags(folder: Path | None = None) -> list[str]:
    """Return what a program is linked with that then finds the library in `folder`; None: in this package."""
    folder = FOLDER if folder is None else folder.resolve()
    return [f"-L{folder}", "-lndp_rt", f"-Wl,-rpath,{folder}"]


def describe() -> str:
    """Return where everything lies and how it is used, as text."""
    problem = find_problem()
    state = f"built for Python {PYTHON_VERSION}" if problem is None else f"{problem}. Run: {find_remedy()}"
    return f"""\
library     {FOLDER / LIBRARY_NAME}
            {state}
headers     {HEADER} for C
            {HEADER.with_suffix(".hpp")} for C++
compiler    cc first.c $(ndp-rt capi --cflags --libs) -o first
pkg-config  export PKG_CONFIG_PATH="$(ndp-rt capi --pkgconfig-dir)", then pkg-config --cflags --libs ndp_rt
CMake       cmake -Dndp_rt_DIR="$(ndp-rt capi --cmake-dir)", then find_package(ndp_rt) and target ndp_rt::ndp_rt
examples    {EXAMPLES}: programs in C, C++ and C#, for CMake and .NET
demo        {DEMO}
            {DEMO_IMAGES}: photographs for it, as PPM"""

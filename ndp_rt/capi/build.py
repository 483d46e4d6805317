"""Compiles libndp_rt.so and its bridge for this Python.

Needs a C compiler, Python's headers and cffi alone: setup.py imports it before anything is installed.
"""

import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ndp_rt import __version__
from ndp_rt.config import find_compiler
from ndp_rt.errors import EngineError, MissingExtraError
from ndp_rt.files import make_temporary_folder, replacing, storing

FOLDER = Path(__file__).parent
SOURCE, INCLUDE = FOLDER / "source", FOLDER / "include"
HEADER = INCLUDE / "ndp_rt.h"
LIBRARY_NAME = "libndp_rt.so"
SONAME = f"{LIBRARY_NAME}.1"  # what a linked program asks for: the number is NDP_RT_ABI_MAJOR
BRIDGE_MODULE = "_ndp_rt_bridge"
BRIDGE_NAME = f"{BRIDGE_MODULE}{sysconfig.get_config_var('EXT_SUFFIX')}"
LIBRARY_FILES = (
    "arguments.c",
    "describe.c",
    "ending.c",
    "error.c",
    "handles.c",
    "inspector.c",
    "jobs.c",
    "location.c",
    "log.c",
    "queue.c",
    "runtime.c",
    "shield.c",
    "turns.c",
)
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")

BRIDGE_TYPES = """
void ndp_bridge_emit(int32_t level, const char *message);
#define NDP_MESSAGE_BYTES ...
"""


def read_header() -> str:
    """Return ndp_rt.h with the one that it includes in its place."""
    text = HEADER.read_text(encoding="utf-8")
    return re.sub(r'^#include "(\w+\.h)"$', lambda found: (INCLUDE / found[1]).read_text("utf-8"), text, flags=re.M)


def read_types(header: str) -> str:
    """Return the types and constants of ndp_rt.h as cffi reads them."""
    return re.sub(r"NDP_RT_API[^;]*;", "", read_declarations(header))


def read_declarations(header: str) -> str:
    """Return types, constants and functions of ndp_rt.h as cffi reads them, where NDP_RT_API is a macro to drop."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif", "", text, flags=re.S | re.M)
    return re.sub(r"^#.*$", "", text, flags=re.M)


def read_python_functions(calls: str) -> str:
    """Return the functions of calls.h, which calls.py defines, as cffi reads them."""
    functions = re.findall(r"CALL\((\w+),\s*(\([^()]*\)),", calls.replace("\\\n", ""))
    return "".join(f'extern "Python+C" int32_t ndp_py_{name}{parameters};\n' for name, parameters in functions)


def build_library(folder: Path = FOLDER, *, home: Path | None = None, flags: Sequence[str] = ()) -> Path:
    """Compile the library, what linked programs find it by, and its bridge, and return the library's path.

    Args:
        folder: where they go, side by side; each replaces an older one in one step.
        home: where they will lie when they are used; None: in `folder`. A copy of the library finds its bridge there.
        flags: more options for the compiler and the linker, such as -fsanitize=address.

    Raises:
        MissingExtraError: as `check_tools`.
        EngineError: the compiler fails; the message ends with what it said.
        StorageError: `folder` cannot be written.
    """
    check_tools()
    compiler = find_compiler()
    with make_temporary_folder("capi") as work:
        bridge = _compile(compiler, [*_list_bridge_inputs(Path(work)), *flags], Path(work) / BRIDGE_NAME)
        library = _compile(compiler, [*_list_library_inputs(home or folder), *flags], Path(work) / LIBRARY_NAME)
        for made in (bridge, library, _make_soname(compiler, Path(work), library.name)):
            _move(made, folder / made.name)
    return folder / LIBRARY_NAME


def check_tools() -> None:
    """Check that what `build_library` compiles with is there.

    Raises:
        MissingExtraError: there is no compiler, no cffi, or this Python lacks headers or its shared library.
    """
    command = find_compiler()[0]
    if shutil.which(command) is None:
        raise MissingExtraError(
            f"there is no C compiler '{command}'. On Debian and Ubuntu: sudo apt install gcc; another one is chosen by "
            "the environment variable CC."
        )
    if importlib.util.find_spec("cffi") is None:
        raise MissingExtraError(f"cffi is not installed. Run: {sys.executable} -m pip install cffi")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise MissingExtraError(
            f"Python's headers are not installed ({header} is missing). On Debian and Ubuntu: sudo apt install "
            f"python{PYTHON_VERSION}-dev"
        )
    find_shared_python()


def find_shared_python() -> Path:
    """Return the shared library of the interpreter that runs this.

    Raises:
        MissingExtraError: it has none, as where Python was compiled without --enable-shared.
    """
    named = str(sysconfig.get_config_var("INSTSONAME") or "")
    # Some are static and ship it all the same, under its usual name.
    usual = f"libpython{sysconfig.get_config_var('LDVERSION')}.so.1.0"
    library_folder = str(sysconfig.get_config_var("LIBDIR"))
    multiarch = str(sysconfig.get_config_var("MULTIARCH"))
    for folder in (library_folder, Path(sys.base_prefix, "lib"), Path(library_folder, multiarch)):
        for name in (named, usual):
            path = Path(folder, name)
            if ".so" in name and path.is_file():
                return path
    raise MissingExtraError(
        f"Python {PYTHON_VERSION} at {sys.executable} has no shared library (libpython{PYTHON_VERSION}.so), which "
        f"libndp_rt.so needs. On Debian and Ubuntu: sudo apt install libpython{PYTHON_VERSION}-dev; with pyenv: "
        "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install ..."
    )


def _list_bridge_inputs(work: Path) -> list[str]:
    import cffi

    maker = cffi.FFI()
    maker.cdef(read_types(read_header()))
    maker.cdef(BRIDGE_TYPES + read_python_functions((SOURCE / "calls.h").read_text(encoding="utf-8")))
    maker.set_source(
        BRIDGE_MODULE, '#define CFFI_DLLEXPORT\n#include "calls.h"\nvoid ndp_bridge_emit(int32_t, const char *);'
    )
    generated = work / f"{BRIDGE_MODULE}.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it reports where it writes
        maker.emit_c_code(str(generated))
    shared = find_shared_python()
    # cffi's code follows rules of its own.
    quiet = ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
    inputs = [str(generated), str(SOURCE / "bridge_start.c"), f"-I{sysconfig.get_path('include')}", *quiet]
    return [*inputs, str(shared), f"-Wl,-rpath,{shared.parent}"]


def _list_library_inputs(home: Path) -> list[str]:
    facts = {
        "NDP_BRIDGE_FILE": BRIDGE_NAME,
        "NDP_BUILD_FOLDER": str(home.resolve()),
        "NDP_PYTHON": sys.executable,
        "NDP_PYTHON_VERSION": PYTHON_VERSION,
    }
    defined = [f"-D{name}={_quote(value)}" for name, value in facts.items()]
    return [*(str(SOURCE / name) for name in LIBRARY_FILES), *defined, f"-Wl,-soname,{SONAME}", "-Wl,-z,defs"]


def _make_soname(compiler: Sequence[str], work: Path, name: str) -> Path:
    """Make the file of the soname: a library without content that needs the one called `name` beside it.

    Elsewhere that is a link, which wheels cannot hold; and a process that found a copy by one name and the original by
    the other would hold two libraries.
    """
    empty, stand_in = work / "empty.c", work / "stand_in" / name
    empty.touch()
    stand_in.parent.mkdir()
    _compile(compiler, [str(empty), f"-Wl,-soname,{name}"], stand_in)
    needs = ["-Wl,--no-as-needed", str(stand_in), "-Wl,--as-needed", "-Wl,-rpath,$ORIGIN"]
    return _compile(compiler, [str(empty), *needs, f"-Wl,-soname,{SONAME}"], work / SONAME)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _compile(compiler: Sequence[str], inputs: Sequence[str], out: Path) -> Path:
    shared = ["-shared", "-Wl,-z,nodelete", f"-I{INCLUDE}", f"-I{SOURCE}", f"-DNDP_VERSION={_quote(__version__)}"]
    run_compiler([*compiler, *FLAGS, *shared, *inputs, "-o", str(out), "-ldl", "-lm", "-lpthread"], out.name)
    return out


def run_compiler(command: Sequence[str], name: str) -> None:
    """Run the C compiler; `name` is what it makes.

    Raises:
        MissingExtraError: it cannot be run.
        EngineError: it fails; the message ends with what it said.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise MissingExtraError(f"the C compiler '{command[0]}' cannot be run ({error.strerror or error}).") from error
    if done.returncode != 0:
        raise EngineError(f"{name} cannot be compiled. {shlex.join(command)} said:\n{done.stderr.strip()[-2000:]}")


def _move(made: Path, target: Path) -> None:
    """Put a file in place of the one that hosts may have loaded, which they keep."""
    with storing(target, "Choose a folder with room that you may write to: ndp-rt capi build -o DIR"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as beside:
            shutil.copy(made, beside)

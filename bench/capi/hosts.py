"""The C host: compiled for a run against the library of this interpreter, and started as a process."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ndp_rt.bench.capi.processes import LineProcess
from ndp_rt.bench.measure import Tell
from ndp_rt.capi.build import FOLDER, LIBRARY_NAME, build_library, run_compiler
from ndp_rt.capi.installed import find_problem, list_compile_flags, list_link_flags
from ndp_rt.config import find_compiler
from ndp_rt.errors import MissingExtraError

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-pedantic")


@dataclass(frozen=True, kw_only=True)
class HostProgram:
    """The compiled host and the library that it is linked with."""

    path: Path
    library: Path
    library_source: str  # how the library came to be

    def start(self, tell: Tell) -> LineProcess:
        """Start a host whose library uses this interpreter.

        Raises:
            EngineError: the runtime does not start there.
        """
        process = LineProcess("the C host", [str(self.path)], tell)
        try:
            process.ask("start", sys.executable)
        except BaseException:
            process.kill()
            process.close()
            raise
        return process

    def describe(self) -> dict[str, Any]:
        """Return what a record says of it."""
        return {
            "library": self.library_source,
            "library_sha256": hashlib.sha256(self.library.read_bytes()).hexdigest(),
            "compiler": read_compiler_version(),
            "flags": " ".join(FLAGS),
        }


def build_host(folder: Path) -> HostProgram:
    """Compile the library and the host into a folder.

    Where the library cannot be compiled, the one that is installed with ndp-rt is used.

    Raises:
        MissingExtraError: there is no compiler; or no way to a library.
        EngineError: the compiler fails; the message ends with what it said.
    """
    try:
        library, source = build_library(folder), "compiled for this run"
    except MissingExtraError:
        library, source = FOLDER / LIBRARY_NAME, "installed"
        if find_problem() is not None:
            raise
    out = folder / "host"
    inputs = [str(path) for path in sorted(SOURCE.glob("*.c"))]
    command = [*find_compiler(), *FLAGS, *list_compile_flags(), *inputs, "-o", str(out)]
    command += [*list_link_flags(library.parent), "-lpthread"]
    run_compiler(command, "the C host")
    return HostProgram(path=out, library=library, library_source=source)


def read_compiler_version() -> str | None:
    """Return the first line of what the compiler says of itself; None: it says nothing."""
    try:
        done = subprocess.run([*find_compiler(), "--version"], capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return next(iter(done.stdout.splitlines()), None)

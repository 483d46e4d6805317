"""Compiles C++ hosts as strictly as C ones, with a compiler that may not be there."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ndp_rt.capi.build import INCLUDE

STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")


def compile_cpp(
    library: Path, source: Path, out: Path, *flags: str, compiler: str = "g++", standard: str = "c++17"
) -> Path:
    """Compile a C++ host and link it to a built library, or with -fsyntax-only look at it alone.

    Skips the test where the compiler is missing.
    """
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}: sudo apt install {'clang' if compiler == 'clang++' else compiler}")
    folder = library.parent
    link = [] if "-fsyntax-only" in flags else [f"-L{folder}", "-lndp_rt", f"-Wl,-rpath,{folder}", "-lpthread"]
    command = [compiler, f"-std={standard}", *STRICT, f"-I{INCLUDE}", str(source), "-o", str(out), *flags, *link]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out

"""Builds the interpreter into a library, once for the same sources."""

import hashlib
import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ndp_rt.devices.machine import find_cpu
from tests.kernels import nvrtc

SOURCE = Path(__file__).parent / "source"
COMPILER = "g++"
REMEDY = "needs g++ on x86-64 Linux: apt-get install g++"
FLAGS = (
    *("-std=c++20", "-O3", "-fPIC", "-fno-strict-aliasing", "-fno-math-errno", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror"),
)


def find_reason_not_to_run() -> str | None:
    """Return why kernels cannot run here, or None."""
    if platform.machine() != "x86_64" or platform.system() != "Linux" or shutil.which(COMPILER) is None:
        return REMEDY
    return None if nvrtc.find_toolkit() is not None else nvrtc.REMEDY


def build_interpreter(folder: Path) -> Path:
    """Build the interpreter into `folder`, or find it there; another process that builds it is waited for."""
    import fcntl  # which only Unix has

    flags = (*FLAGS, *list_machine_flags())
    digest = hashlib.sha256(subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout)
    digest.update("\0".join(flags).encode())
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.read_bytes())
    library = folder / f"{digest.hexdigest()[:32]}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            link(library, list(flags))
    return library


def link(library: Path, flags: list[str]) -> None:
    """Compile each source beside the library, on all cores, and link them."""
    sources = sorted(SOURCE.glob("*.cpp"))
    objects = [library.with_suffix(f".{source.stem}.o") for source in sources]

    def compile_one(source: Path, to: Path) -> None:
        subprocess.run([COMPILER, *flags, "-c", str(source), "-o", str(to)], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    partial = library.with_suffix(".tmp")
    subprocess.run([COMPILER, "-shared", *map(str, objects), "-o", str(partial)], check=True)
    for one in objects:
        one.unlink()
    partial.replace(library)


def list_machine_flags() -> tuple[str, ...]:
    """Return the flag for vectors where this CPU has them."""
    return ("-march=x86-64-v3",) if {"avx2", "fma", "f16c"} <= set(find_cpu().isa_flags) else ()

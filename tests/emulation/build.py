"""Builds a kernel source into a library for the CPU, once for the same inputs."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ndp_rt.devices.machine import find_cpu

INCLUDE = Path(__file__).parent / "include"
COMPILER = "g++"
REMEDY = "needs g++ on x86-64 Linux: apt-get install g++"
# What CUDA promises and the host compiler does not: reads through pointers of another type. No stack protection:
# threads of a block have stacks of their own.
FLAGS = (
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-strict-aliasing", "-fno-stack-protector"),
    *("-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-sign-compare"),
)
MAX_SHARED_BYTES = 227 * 1024
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
ENTRY = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\((?P<bounds>(?:[^()]|\([^()]*\))*)\)\s*)?(?P<name>\w+)\s*\('
)
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s+)?(?P<type>[\w ]+?)\s+(?P<name>\w+)\s*\[\s*\]"
)


class SourceError(Exception):
    """A kernel source that the host compiler refuses, or whose form the emulation does not know."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A built kernel source: the file, and the kernels in it."""

    path: Path
    entries: tuple[str, ...]


def find_reason_not_to_build() -> str | None:
    """Return why kernels cannot be built here, or None."""
    is_here = platform.machine() == "x86_64" and platform.system() == "Linux" and shutil.which(COMPILER) is not None
    return None if is_here else REMEDY


def build_library(code: str, options: tuple[str, ...], folder: Path) -> Library:
    """Build `code` with the defines of `options` into `folder`, or find it there.

    Raises:
        SourceError: it does not compile.
    """
    host_code, entries = write_host_code(code)
    command = [COMPILER, *FLAGS, *list_machine_flags(), *(o for o in options if o.startswith("-D")), f"-I{INCLUDE}"]
    path = folder / f"{compute_key(host_code, command)}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        done = subprocess.run(
            [*command, "-x", "c++", "-", "-o", str(partial)], input=host_code, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SourceError(done.stderr)
        partial.replace(path)
    return Library(path=path, entries=entries)


def write_host_code(code: str) -> tuple[str, tuple[str, ...]]:
    """Return the C++ source that holds `code` and a host entry for each of its kernels, and the kernels' names."""
    bare = COMMENT.sub(" ", code)
    entries = [(match["name"], match["bounds"]) for match in ENTRY.finditer(bare)]
    if not entries or len(entries) != bare.count("__global__"):
        raise SourceError(
            'expected kernels of the form extern "C" __global__ void [__launch_bounds__(...)] name(...), got '
            f"{bare.count('__global__')} kernels in the source, of which {len(entries)} have it."
        )
    dynamic = {(match["name"], match["type"]) for match in DYNAMIC.finditer(bare)}
    if len(dynamic) > 1:
        raise SourceError(
            f"expected one declaration of dynamic shared memory, got {sorted(dynamic)}. Declare it once, or alike."
        )
    name, kind = next(iter(dynamic), ("ndp_rt_no_shared_memory", "unsigned char"))
    size = f"({MAX_SHARED_BYTES} + 4096) / sizeof({kind})" if dynamic else "1"
    parts = [
        '#include "cuda_emulation.h"',
        f"thread_local {kind} {name}[{size}] __attribute__((aligned(128)));",
        f'#line 1 "kernel.cu"\n{code}',
        '#include "emulation/host_call.h"',
        *(
            f"NDP_RT_HOST_ENTRY({entry}, ndp_rt_first({bounds or 1024}), {name}, {str(bool(dynamic)).lower()})"
            for entry, bounds in entries
        ),
    ]
    return "\n".join(parts) + "\n", tuple(entry for entry, _ in entries)


def list_machine_flags() -> tuple[str, ...]:
    """Return the flag for vectors where this CPU has them: four times faster than without."""
    return ("-march=x86-64-v3",) if {"avx2", "fma", "f16c"} <= set(find_cpu().isa_flags) else ()


def compute_key(host_code: str, command: list[str]) -> str:
    """Return a digest of all that decides what the library holds."""
    digest = hashlib.sha256("\0".join(command).encode())
    digest.update(describe_surroundings())
    digest.update(host_code.encode())
    return digest.hexdigest()[:32]


@cache
def describe_surroundings() -> bytes:
    """Return the compiler's version and the headers of the emulation, which stay as they are during a run."""
    version = subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout
    return version + b"\0".join(path.read_bytes() for path in sorted(INCLUDE.rglob("*.h")))

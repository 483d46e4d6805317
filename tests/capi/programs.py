"""Hosts without Python: the C programs in hosts/, compiled and run as processes of their own."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ndp_rt.capi.build import BRIDGE_NAME, INCLUDE, SONAME, SOURCE
from ndp_rt.config import find_compiler
from tests.capi.library import STRICT

Run = Callable[..., list[str]]  # steps to a host's lines
HOSTS = Path(__file__).parent / "hosts"


def compile_host(names: Sequence[str], out: Path, *flags: str) -> Path:
    """Compile files of hosts/ strictly into a program that links nothing of ours, or what `flags` say."""
    sources = [str(HOSTS / name) for name in names]
    command = [*find_compiler(), *STRICT, "-g", f"-I{INCLUDE}", f"-I{SOURCE}", *sources, "-o", str(out), *flags]
    done = subprocess.run([*command, "-lpthread", "-ldl", "-lm"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def link_host(library: Path, names: Sequence[str], out: Path, *flags: str) -> Path:
    """Compile files of hosts/ into a program that is linked to a built library."""
    folder = library.parent
    # The harness counts in 128 bits, which no C standard has.
    return compile_host(names, out, "-Wno-pedantic", *flags, f"-L{folder}", "-lndp_rt", f"-Wl,-rpath,{folder}")


def add_fake_bridge(library: Path, folder: Path, *flags: str) -> Path:
    """Copy a built library into `folder`, beside a bridge without Python, and return the copy's path."""
    folder.mkdir(exist_ok=True)
    compile_host(["fake_bridge.c"], folder / BRIDGE_NAME, *flags, "-fPIC", "-shared")
    shutil.copy(library.with_name(SONAME), folder)
    return Path(shutil.copy(library, folder))


def run_program(
    command: Sequence[str | int | Path],
    environment: Mapping[str, str] | None = None,
    *,
    exit_code: int = 0,
    timeout_s: float = 300,
    **options: Any,
) -> list[str]:
    """Run a program with this environment alone and return what it printed, after checking how it ended."""
    done = subprocess.run(
        [str(word) for word in command],
        env=dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        **options,
    )
    assert done.returncode == exit_code, f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout.splitlines()


def run_steps(
    steps: Path, library: Path, words: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any
) -> list[str]:
    """Have hosts/steps.c do what `words` say with a library; see there."""
    lines = run_program([steps, library, *words], {**read_environment(), **(environment or {})}, **options)
    return [line.rstrip() for line in lines]


def read_environment() -> dict[str, str]:
    """Return all that a host's environment has here: the tests' cache of engines."""
    return {"NDP_RT_CACHE": os.environ["NDP_RT_CACHE"]}

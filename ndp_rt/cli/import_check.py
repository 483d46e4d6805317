"""Imports packages as a command would, in a process of its own, and says which of them fail."""

import importlib
import json
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from ndp_rt.config import child_command, child_environment, find_python

TIME_LIMIT_S = 120


@lru_cache(maxsize=8)
def find_broken(modules: tuple[str, ...]) -> dict[str, str]:
    """Return the modules that cannot be imported, each with the reason in one line.

    A package may be installed and broken, as OpenCV is where another wheel has overwritten its files. One that ends the
    process, or takes longer than 120 s with those before it, is broken too; what comes after it is then not looked at.
    """
    if find_python() is None:
        return {}  # a frozen program holds what it was made with
    try:
        done = subprocess.run(
            [*child_command(__name__), *modules],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=child_environment(),
            timeout=TIME_LIMIT_S,
            check=False,
        )
        said, end = done.stdout, f"importing it ends the process ({done.returncode})"
    except subprocess.TimeoutExpired as error:
        said, end = (error.stdout or b"").decode(errors="replace"), f"importing it takes longer than {TIME_LIMIT_S} s"
    found: dict[str, str] = {}
    for line in said.splitlines():
        if line.startswith('["'):
            name, problem = json.loads(line)
            found[name] = end if problem is None else problem
    return {name: problem for name, problem in found.items() if problem}


def main(modules: Sequence[str]) -> int:
    """Import each module; print JSON lines: [name, null] before, [name, problem] or [name, ""] after."""
    for name in modules:
        print(json.dumps([name, None]), flush=True)
        problem = ""
        try:
            if importlib.import_module(name).__file__ is None:
                problem = "its folder has no code, as when another wheel with the same files was removed"
        except BaseException as error:  # whatever a broken package raises
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"\n{json.dumps([name, problem])}", flush=True)
    return 0

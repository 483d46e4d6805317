"""The tests that need a GPU, as part of `make gpu-check`: by pytest, and the kernels' under compute-sanitizer."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence

from ndp_rt.evaluate.record import Record

SANITIZER = "compute-sanitizer"
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
KERNEL_TESTS = "tests/kernels"
OUTCOME = re.compile(r"\d+ (passed|failed|skipped|deselected|error)")
NO_TESTS_EXIT_CODE = 5  # pytest's, where every test was deselected


def run_tests() -> Record:
    """Run the tests marked `gpu` and `tensorrt`, if pytest is installed, and return how they ended."""
    if importlib.util.find_spec("pytest") is None:
        return {"left_out": "pytest is not installed"}
    return run([sys.executable, "-m", "pytest", "-m", "gpu or tensorrt"])


def run_sanitizer(tools: Sequence[str]) -> dict[str, Record]:
    """Run the kernels' tests under tools of compute-sanitizer, and return how each ended.

    The first error ends a tool with exit code 1; racecheck alone sees what the emulation cannot: the hardware's order
    of memory between threads.
    """
    found = shutil.which(SANITIZER)
    if found is None or importlib.util.find_spec("pytest") is None:
        missing = SANITIZER if found is None else "pytest"
        return {tool: {"left_out": f"{missing} is not installed"} for tool in tools}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", KERNEL_TESTS]
    return {tool: run([found, "--tool", tool, "--error-exitcode", "1", *command]) for tool in tools}


def run(command: Sequence[str]) -> Record:
    """Run a command, show what it prints, and return its exit code and its last word."""
    print(shlex.join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    lines = [line for line in done.stdout.splitlines() if OUTCOME.search(line) or "ERROR SUMMARY" in line]
    return {"command": shlex.join(command), "exit_code": done.returncode, "outcome": "; ".join(lines[-2:])}


def has_failed(record: Record) -> bool:
    """Tell whether what `run` returned is a failure."""
    return record.get("exit_code", 0) not in (0, NO_TESTS_EXIT_CODE)

"""What the tools of binutils say of a compiled file; without them the test is skipped."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def run_tool(*command: str) -> str:
    """Return what a tool prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}: sudo apt install binutils")
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def read_dynamic(path: Path, tag: str) -> list[str]:
    """Return the values of a tag, such as NEEDED, in a file's dynamic section."""
    return re.findall(rf"\({tag}\).*\[(.*)\]", run_tool("readelf", "-d", str(path)))

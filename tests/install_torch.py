"""`python tests/install_torch.py`: installs PyTorch for the tests, if the package index has a build without CUDA.

PyPI's build for Linux brings gigabytes of CUDA packages, which the tests do not need; then nothing is installed and the
command that gets the CPU build is printed. pip is asked first what it would install, so nothing large is downloaded.
"""

import importlib.util
import json
import shlex
import subprocess
import sys

TORCH = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


def list_planned(requirement: str) -> list[str]:
    """Return the names of what pip would install for `requirement`; empty when it finds no way."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return []
    return [entry["metadata"]["name"].lower() for entry in json.loads(done.stdout)["install"]]


def install() -> str:
    """Install PyTorch and the rest of the extra [train] where that brings no CUDA; return what was done, in a line."""
    python = shlex.quote(sys.executable)
    by_hand = f"To run them: {python} -m pip install {TORCH} --index-url {CPU_INDEX}, then make test again."
    if importlib.util.find_spec("torch") is None:
        planned = list_planned(TORCH)
        if not planned:
            return f"{TORCH} is not in the package index for this Python; tests that need it are skipped. {by_hand}"
        if any(name.startswith(CUDA_PREFIXES) for name in planned):
            return f"The package index has {TORCH} with CUDA only; tests that need it are skipped. {by_hand}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", TORCH, "-e", ".[train]"]
    done = subprocess.run(command, check=False)
    return f"{TORCH} is installed" if done.returncode == 0 else f"{TORCH} could not be installed. {by_hand}"


if __name__ == "__main__":
    print(install())

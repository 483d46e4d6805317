"""Builds wheels and source archives from a copy of the checkout, and makes environments to install them in."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "*.egg-info",
    "build",
    "dist",
    "runs",
    "demo-out",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.tmp",
)
NO_COMPILER = {"CC": "/nonexistent/cc"}


def copy_checkout(target: Path) -> Path:
    """Copy what a clean checkout holds, links as links."""
    shutil.copytree(ROOT, target, symlinks=True, ignore=NOT_COPIED)
    for made in (target / "ndp_rt" / "capi").glob("*.so*"):
        made.unlink()
    return target


def build(source: Path, out: Path, kind: str, **environment: str) -> tuple[Path, str]:
    """Build a wheel or a source archive of `source` with the installed setuptools; needs no network.

    Returns:
        The file that was made, and what the build said.
    """
    call = f"import setuptools.build_meta as b; b.build_{kind}({str(out)!r})"
    out.mkdir(parents=True, exist_ok=True)
    done = run([sys.executable, "-c", call], cwd=source, **environment)
    [made] = out.iterdir()
    return made, done.stdout + done.stderr


def run(command: list[str], *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed, with these variables besides."""
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def list_wheel(wheel: Path) -> set[str]:
    """Return the files of a wheel that get installed into the package."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a source archive and return its one folder."""
    with tarfile.open(archive) as opened:
        opened.extractall(target)  # our own archive; Python 3.11.2 has no filters
    [unpacked] = target.iterdir()
    return unpacked


def make_environment(folder: Path) -> Path:
    """Make an environment that also sees the packages of this one, and return its folder."""
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "packages_of_the_tests.pth").write_text("\n".join(packages), encoding="utf-8")
    return folder


def install(environment: Path, *arguments: str, cwd: Path, **variables: str) -> str:
    """Have pip install something without its dependencies and without a network; return what it said."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("needs pip: python -m ensurepip")
    # The tests' own ndp-rt is seen too, and is not to be touched.
    options = ["--no-index", "--no-deps", "--no-cache-dir", "--no-build-isolation", "--ignore-installed", "-v"]
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", *options]
    done = run([*pip, *arguments], cwd=cwd, PIP_ROOT_USER_ACTION="ignore", **variables)
    return done.stdout + done.stderr

"""A program that PyInstaller froze builds its engines and inspects, and never starts itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndp_rt import Inspector, read_image
from ndp_rt.capi.installed import DEMO, DEMO_IMAGES

ROOT = Path(__file__).parent.parent.parent
IMAGE = DEMO_IMAGES / "defect.ppm"
# What it takes comes by its environment, so that one that starts itself would do all this again: three times at most.
PROGRAM = """
import json
import os
import sys
from pathlib import Path

from ndp_rt import Inspector, read_image

if __name__ == "__main__":
    starts = Path(os.environ["STARTS"])
    with starts.open("a") as stream:
        stream.write("started\\n")
    if len(starts.read_text().splitlines()) > 3:
        sys.exit("it started itself")
    with Inspector.open(os.environ["BUNDLE"], threads=1) as inspector:
        result = inspector.inspect(read_image(os.environ["IMAGE"]))
    print(json.dumps([getattr(sys, "frozen", False), result.score, result.is_defect]))
"""
# As docs/packagers.md says. What the tests brought beside the base installation is left out, for it takes minutes.
COLLECTED = ("--collect-all", "ndp_rt", "--collect-all", "openvino")
LEFT_OUT = (  # names with spaces between them
    "PIL cryptography cupy hypothesis imagecodecs jinja2 matplotlib mypy onnx onnxruntime pyarrow pytest scipy skimage "
    "sklearn tifffile torch"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The frozen program, in a folder of half a gigabyte that goes with the tests."""
    pytest.importorskip("PyInstaller", reason="needs PyInstaller: pip install pyinstaller")
    if shutil.which("objdump") is None:
        pytest.skip("PyInstaller needs objdump: sudo apt install binutils")
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    left_out = [word for name in LEFT_OUT.split() for word in ("--exclude-module", name)]
    options = ["--log-level", "ERROR", "--paths", str(ROOT), *COLLECTED, *left_out]  # --paths: a checkout is no package
    command = [sys.executable, "-m", "PyInstaller", *options, "program.py"]
    cache = os.environ | {"PYINSTALLER_CONFIG_DIR": str(folder / "config")}
    done = subprocess.run(command, cwd=folder, env=cache, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    yield folder / "dist" / "program" / "program"
    shutil.rmtree(folder)


@pytest.mark.parametrize("python", [None, sys.executable], ids=["in itself", "with NDP_RT_PYTHON"])
def test_a_frozen_program_builds_engines_without_starting_itself(
    program: Path, tmp_path: Path, python: str | None
) -> None:
    starts, cache = tmp_path / "starts", tmp_path / "cache"
    environment = {"STARTS": starts, "BUNDLE": DEMO, "IMAGE": IMAGE, "NDP_RT_CACHE": cache, "HOME": tmp_path}
    environment |= {} if python is None else {"NDP_RT_PYTHON": python}
    given = {name: str(value) for name, value in environment.items()}
    done = subprocess.run([program], env=given, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert starts.read_text() == "started\n"
    with Inspector.open(DEMO, threads=1) as inspector:
        result = inspector.inspect(read_image(IMAGE))
    assert json.loads(done.stdout) == [True, result.score, result.is_defect]
    assert len(list(cache.glob("engines/*/engine.json"))) == 1

"""OpenCV that another wheel has broken, or that is not there: every command ends in one sentence with the remedy."""

import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.cli.import_check import find_broken
from tests.bricks import BRICK_IMAGES, BRICKS

BROKEN = {
    "raises": "raise ImportError('libGL.so.1: no such file')",
    "fails otherwise": "raise AttributeError('_ARRAY_API not found')",
    "holds no code": "",
}
COMMANDS = (
    ("inspect", str(BRICKS), str(BRICK_IMAGES), "-o", "out"),
    ("set-reference", "copy.ndp", str(BRICK_IMAGES / "good_000.png")),
    ("set-threshold", "copy.ndp", "--calibrate", str(BRICK_IMAGES)),
    ("evaluate", str(BRICKS), "data", "-o", "out"),
    ("train", str(BRICK_IMAGES), "-o", "run", "--model", "gaussian"),
    ("quantise", "copy.ndp", "--calibration", str(BRICK_IMAGES)),
    ("bench", str(BRICKS), "-o", "out", "--seconds", "0.1"),
    ("build-engine", str(BRICKS)),
    ("demo", "-o", "out"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle that may be changed, labelled data, and broken packages in folders of their own."""
    root = tmp_path_factory.mktemp("broken")
    (root / "copy.ndp").symlink_to(BRICKS)
    for kind, image in (("good", "good_000"), ("crack", "defect_crack")):
        (root / "data" / "test" / kind).mkdir(parents=True)
        (root / "data" / "test" / kind / "0.png").symlink_to(BRICK_IMAGES / f"{image}.png")
    for name, code in BROKEN.items():
        (root / name / "cv2").mkdir(parents=True)
        (root / name / "cv2" / "__init__.py").write_text(code)
    return root


def run(folder: Path, how: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder / how)!r}); from ndp_rt.cli import main; sys.exit(main())"
    environment = {"PYTHONPATH": str(folder / how), "NDP_RT_CACHE": str(folder / "cache"), "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=environment,
        check=False,
    )


@pytest.mark.nightly(but=4)
@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize(
    "command",
    [pytest.param(one, id=one[0], marks=[pytest.mark.torch] if one[0] == "train" else []) for one in COMMANDS],
)
def test_a_command_ends_in_one_sentence(folder: Path, command: tuple[str, ...], how: str) -> None:
    done = run(folder, how, *command)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 4) and "Traceback" not in said and "NoneType" not in said, said
    assert "OpenCV cannot be used (" in said and "pip install --force-reinstall opencv-python-headless" in said, said


def test_doctor_finds_a_folder_that_another_wheel_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow" / "data").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_broken(("hollow", "json"))
    find_broken.cache_clear()
    assert list(found) == ["hollow"] and "its folder has no code" in found["hollow"]

"""The toy family, installed as another package would be: its folder on the path, here and in processes started here."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.cli import main

FOLDER = Path(__file__).parent
SIDE_PX = (60, 50)


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    """Put the toy where packages are found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        paths = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield


def make_photograph(seed: int, *, has_defect: bool = False) -> np.ndarray:
    """Return a grey striped surface, uint8 [60, 50], with a bright spot where it has a defect."""
    rng = np.random.default_rng(seed)
    image = 110 + 30 * np.sin(np.arange(SIDE_PX[1]) / 3.0) + rng.normal(0.0, 2.0, SIDE_PX)
    if has_defect:
        image[22:34, 18:30] = 240
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good photographs."""
    folder = tmp_path_factory.mktemp("toy") / "photographs"
    folder.mkdir()
    for seed in range(8):
        assert cv2.imwrite(str(folder / f"{seed}.png"), make_photograph(seed))
    return folder


@pytest.fixture(scope="session")
def run(photographs: Path) -> Path:
    """A finished training run."""
    path = photographs.parent / "run"
    options = ["--family", "toy", "--memory", "24", "--size", "48x40", "--threads", "1", "--holdout", "0.4"]
    assert main(["train", str(photographs), "-o", str(path), *options]) == 0
    return path


@pytest.fixture(scope="session")
def bundle(run: Path) -> Iterator[Path]:
    """The run's bundle, its engines in a cache of the session's own."""
    path = run.parent / "toy.ndp"
    assert main(["export", str(run), "-o", str(path)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NDP_RT_CACHE", str(run.parent / "cache"))
        yield path

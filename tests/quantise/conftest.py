"""A tiny bundle, photographs of a surface for it, and a clock that says that int8 is faster."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.bundle import Bundle
from ndp_rt.engines.engine import Engine
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four photographs of a grey, structured surface, 64 x 64."""
    folder = tmp_path_factory.mktemp("surface")
    rng = np.random.default_rng(5)
    for index in range(4):
        noise = cv2.GaussianBlur(rng.normal(0.0, 60.0, (64, 64)).astype(np.float32), (0, 0), 1.0)
        cv2.imwrite(str(folder / f"good_{index}.png"), np.clip(noise + 128.0, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny.ndp")


@pytest.fixture
def fast_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that each engine takes less time than the one after it: the one that was chosen, and then the float ones."""

    def compare(engines: Sequence[Engine], image: object) -> list[list[float]]:
        return [[float(place)] * 3 for place in range(1, len(engines) + 1)]

    monkeypatch.setattr("ndp_rt.quantise.search.compare_times", compare)

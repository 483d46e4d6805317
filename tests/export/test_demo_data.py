"""The demo's photographs: parts that share no pixel, defects where the masks say, always the same."""

from pathlib import Path

import numpy as np
import pytest

from ndp_rt.export.data import demo_data
from ndp_rt.images.preprocess import read_image
from tests.conftest import is_installed

pytestmark = pytest.mark.skipif(not is_installed("skimage"), reason="needs scikit-image: pip install scikit-image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    demo_data.write_demo_data(out)
    return out


def test_the_parts_share_no_column() -> None:
    parts = [demo_data.TRAINING_COLUMNS, demo_data.CALIBRATION_COLUMNS, demo_data.DEMO_COLUMNS]
    columns = [set(range(*part)) for part in parts]
    assert sum(map(len, columns)) == len(set.union(*columns))


def test_tiles_have_the_size_of_the_network(folder: Path) -> None:
    tiles = [*folder.glob("train/good/*.png"), *folder.glob("validation/good/*.png"), *folder.glob("demo/*.png")]
    assert len(tiles) == 225 + 13 + 14
    assert {read_image(path).shape for path in tiles} == {(128, 128)}


def test_painted_defects_change_the_image_only_near_their_mask(folder: Path) -> None:
    photograph = demo_data.load_photograph(demo_data.SURFACE)[:, slice(*demo_data.DEMO_COLUMNS)]
    tops = range(0, 512 - 127, 32)
    for name in demo_data.PAINTERS:
        painted, mask = (read_image(folder / "demo" / f"{kind}_{name}.png") for kind in ("defect", "mask"))
        differences = [np.abs(painted.astype(int) - photograph[top : top + 128]) for top in tops]
        difference = min(differences, key=lambda d: int((d > 0).sum()))
        assert set(np.unique(mask)) == {0, 255}
        assert 0.0005 < (mask > 0).mean() < 0.1
        assert np.median(difference[mask > 0]) > 15
        assert difference[mask == 0].max() <= 35


def test_the_files_are_always_the_same(folder: Path, tmp_path: Path) -> None:
    demo_data.write_demo_data(tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes()


def test_the_readme_says_that_defects_are_painted(folder: Path) -> None:
    text = (folder / "demo" / "README.txt").read_text()
    assert "PAINTED" in text
    assert "CC0" in text

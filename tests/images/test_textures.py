"""Textures: crops of the size asked for, from a folder or from the data itself."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.errors import DataError
from ndp_rt.images.textures import LONGEST_SIDE_PX, TextureImages, list_textures, load_textures


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize("size", [(64, 64), (128, 37), (1, 5)])
@pytest.mark.parametrize("is_altered", [False, True])
def test_a_texture_has_the_size_asked_for(rng: np.random.Generator, size: tuple[int, int], is_altered: bool) -> None:
    textures = TextureImages([rng.integers(0, 256, (40, 90), np.uint8)], is_altered=is_altered)
    for _ in range(10):
        texture = textures(rng, *size)
        assert texture.shape == (*size, 3)
        assert texture.dtype == np.float32
        assert 0.0 <= texture.min() <= texture.max() <= 1.0


def test_altered_textures_leave_the_surface(rng: np.random.Generator) -> None:
    surface = np.clip(rng.normal(128, 6, (64, 64)), 0, 255).astype(np.uint8)
    textures = TextureImages([surface], is_altered=True)
    deviations = [abs(float(textures(rng, 64, 64).mean()) - 0.5) for _ in range(30)]
    assert np.median(deviations) > 0.1


def test_folders_are_searched_below_too(tmp_path: Path, rng: np.random.Generator) -> None:
    grey = write(tmp_path / "a" / "grey.png", rng.integers(0, 256, (30, 20), np.uint8))
    large = write(tmp_path / "b" / "large.png", rng.integers(0, 256, (700, 350, 3), np.uint8))
    deep = write(tmp_path / "deep.png", rng.integers(0, 65536, (30, 30, 3), np.uint16))
    assert list_textures(tmp_path) == [grey, large, deep]
    loaded = load_textures([grey, large, deep])
    assert [image.dtype for image in loaded.images] == [np.uint8] * 3
    assert max(loaded.images[1].shape) == LONGEST_SIDE_PX
    assert all(image.shape[2] == 3 for image in loaded.images)


def test_a_damaged_texture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"broken\.png"):
        load_textures([path])

"""Good images as statistics see them: mirrored and turned copies."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.export.data.images import GoodImages, MirroredImages
from ndp_rt.program.manifest import InputContract


def write_images(folder: Path, count: int, height: int, width: int, rng: np.random.Generator) -> GoodImages:
    paths = [folder / f"{index}.png" for index in range(count)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width), np.uint8))
    return GoodImages(paths, InputContract(height_px=height, width_px=width))


@pytest.mark.parametrize(("height", "width", "orientation_count"), [(32, 32, 7), (32, 48, 3)])
def test_each_copy_is_its_image_in_another_orientation(
    height: int, width: int, orientation_count: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    images = write_images(tmp_path, 9, height, width, rng)
    numbers = [8, 0, 1, 2, 3, 4, 5, 6]
    mirrored = MirroredImages(images, numbers)
    assert len(mirrored) == 16
    found = set()
    for place, number in enumerate(numbers):
        original, copy = images[number], mirrored[8 + place]
        assert (mirrored[place] == original).all()
        assert copy.shape == original.shape
        same = [
            (turn, flip)
            for turn in range(4)
            for flip in (False, True)
            if np.array_equal(copy, np.rot90(original, turn)[:, :: -1 if flip else 1])
        ]
        assert len(same) == 1
        assert same != [(0, False)]
        found.add(same[0])
    assert len(found) == orientation_count

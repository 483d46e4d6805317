"""What is left out of good images: frames of a dead camera, and copies."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt.cli.good_images import list_good_images
from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.images.survey import survey_images

Picture = NDArray[np.generic]


def make_surface(rng: np.random.Generator, shape: tuple[int, ...] = (60, 80)) -> Picture:
    return rng.normal(120.0, 12.0, shape).clip(0, 255).astype(np.uint8)


def write(folder: Path, **pictures: Picture) -> list[Path]:
    paths = [folder / f"{name}.png" for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        assert cv2.imwrite(str(path), picture)
    return paths


@pytest.fixture
def surfaces(tmp_path: Path, rng: np.random.Generator) -> list[Path]:
    return write(tmp_path, **{f"good{index}": make_surface(rng) for index in range(6)})


def tear(picture: Picture, start: int, end: int, level: int) -> Picture:
    torn = picture.copy()
    torn[start:end] = level
    return torn


def leave_a_few(picture: Picture, level: int) -> Picture:
    """A saturated frame: one pixel in thirty is left."""
    saturated = np.full_like(picture, level)
    saturated.flat[::30] = picture.flat[::30]
    return saturated


DEAD: dict[str, tuple[str, Callable[[np.random.Generator], Picture]]] = {
    "black": ("constant", lambda rng: np.zeros((60, 80), np.uint8)),
    "white": ("constant", lambda rng: np.full((60, 80), 255, np.uint8)),
    "noise": ("constant", lambda rng: rng.integers(0, 3, (60, 80), np.uint8)),
    "bright": ("saturated", lambda rng: leave_a_few(make_surface(rng), 255)),
    "lower": ("torn", lambda rng: tear(make_surface(rng), 40, 60, 0)),
    "upper": ("torn", lambda rng: tear(make_surface(rng), 0, 10, 128)),
    "middle": ("torn", lambda rng: tear(make_surface(rng), 20, 30, 255)),
    "colour": ("torn", lambda rng: tear(make_surface(rng, (60, 80, 3)), 30, 60, 0)),
}


@pytest.mark.parametrize("name", DEAD)
def test_dead_frames_are_left_out_by_name_and_kind(
    tmp_path: Path, rng: np.random.Generator, surfaces: list[Path], name: str
) -> None:
    kind, make = DEAD[name]
    dead = write(tmp_path, **{name: make(rng)})[0]
    survey = survey_images([dead, *surfaces])
    assert dict(survey.dead) == {dead: kind}
    assert survey.kept == tuple(surfaces)
    assert survey.notes == (f"1 frame(s) of a dead camera are left out (1 {kind}): {name}.png",)


def test_a_mount_that_every_image_shows_is_no_tear(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = {f"{index}": tear(make_surface(rng), 50, 60, 0) for index in range(6)}
    assert survey_images(write(tmp_path, **pictures)).dead == {}


def test_a_part_before_a_white_ground_is_no_tear(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = {}
    for index in range(6):
        picture = np.full((60, 80), 255, np.uint8)
        top = 5 * index
        for row in range(25):  # a triangle, its tip up
            picture[top + row, 40 - row : 41 + row] = make_surface(rng, (1, 2 * row + 1))
        pictures[f"{index}"] = picture
    assert survey_images(write(tmp_path, **pictures)).dead == {}


def test_even_surfaces_and_a_fainter_one_are_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = {f"{index}": (120 + make_surface(rng) // 40).astype(np.uint8) for index in range(6)}
    faint = {"faint": (100 + make_surface(rng) // 60).astype(np.uint8)}
    assert survey_images(write(tmp_path, **pictures, **faint)).dead == {}


def test_twelve_bits_in_sixteen_are_compared_among_themselves(
    tmp_path: Path, rng: np.random.Generator, surfaces: list[Path]
) -> None:
    deep = write(tmp_path, **{f"deep{index}": make_surface(rng).astype(np.uint16) * 16 for index in range(3)})
    survey = survey_images([*surfaces, *deep])
    assert survey.dead == {}
    words = "good images are 6 of 8 bits and 3 of 16 bits, such as deep0.png, deep1.png, deep2.png"
    assert survey.notes[0].startswith(words)


def test_several_sizes_are_said(tmp_path: Path, rng: np.random.Generator, surfaces: list[Path]) -> None:
    other = write(tmp_path, other=make_surface(rng, (30, 50)))
    assert survey_images([*surfaces, *other]).notes == (
        "good images are of 2 sizes, most often 60 x 80 (6); all are resized to one",
    )


def test_copies_are_found_by_their_pixels(tmp_path: Path, surfaces: list[Path]) -> None:
    """One is stored as another file of the same pixels."""
    copy = tmp_path / "copy.png"
    cv2.imwrite(str(copy), cv2.imread(str(surfaces[1]), cv2.IMREAD_UNCHANGED), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert copy.read_bytes() != surfaces[1].read_bytes()
    survey = survey_images([*surfaces, copy])
    assert dict(survey.copies) == {copy: surfaces[1]}
    assert survey.kept == tuple(surfaces)
    assert survey.notes == ("1 image(s) are copies of others and left out, such as copy.png of good1.png",)


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageFileError, match=r"a\.png"):
        survey_images([tmp_path / "a.png"])


def test_commands_leave_dead_frames_out_and_say_so(
    tmp_path: Path, surfaces: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, black=np.zeros((60, 80), np.uint8))
    assert list_good_images([str(tmp_path)]) == surfaces
    assert "1 frame(s) of a dead camera are left out (1 constant): black.png" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"expected good images, got none\. 1 frame\(s\).*black\.png\. Give others"):
        list_good_images([str(tmp_path / "black.png")])

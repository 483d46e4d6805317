"""Which good images belong together: by folder, by name, by content."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.groups import find_groups, find_independent

Picture = NDArray[np.uint8]


def make_surface(rng: np.random.Generator, side_px: int) -> Picture:
    """A surface with structure of several sizes."""
    layers = [cv2.resize(rng.standard_normal((side_px // step,) * 2), (side_px,) * 2) for step in (2, 5, 16)]
    return np.clip(128 + 18 * sum(layers), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture)
    return paths


def name_files(*names: str) -> list[Path]:
    """Paths of files that do not exist: names alone decide."""
    return [Path(f"photos/{name}.png") for name in names]


def group_sizes(labels: Sequence[str]) -> list[int]:
    return sorted(labels.count(label) for label in set(labels))


def test_folders_are_groups() -> None:
    paths = [Path(f"photos/{day}/{index}.png") for day in ("monday", "tuesday") for index in range(3)]
    grouping = find_groups(paths)
    assert grouping.rule == "folder"
    assert group_sizes(grouping.labels) == [3, 3]
    assert find_groups(paths, "folder").labels == grouping.labels


@pytest.mark.parametrize(
    "names",
    [
        [f"{sheet:03d}_y{y:03d}_x{x:03d}" for sheet in range(4) for y in (0, 192) for x in (0, 192)],
        [f"kos{sheet:02d}_{number}" for sheet in range(4) for number in range(4)],
        [f"PA_GLA01_TL_S_ND_0{sheet}_{number}" for sheet in range(4) for number in range(4)],
        [f"2024-01-0{day} {number}" for day in range(1, 5) for number in range(4)],
    ],
)
def test_the_shortest_beginning_that_tells_names_apart_is_the_group(names: list[str]) -> None:
    grouping = find_groups(name_files(*names))
    assert grouping.rule == "prefix"
    assert group_sizes(grouping.labels) == [4, 4, 4, 4]


@pytest.mark.parametrize(
    "names",
    [
        ["001", "002", "003", "004", "005", "006"],  # no separator
        [f"exp4_num_{number}" for number in range(6)],  # one group, then each its own
        ["a_1", "b_1", "c_1", "d_1", "e_1", "e_2"],  # hardly any has a fellow
        ["good_left", "good_right", "good_top", "bad_left", "bad_right", "bad_top"],  # no number follows
        ["a_1", "a_2", "a_3", "b_1", "b_2", "b"],  # one without a number
    ],
)
def test_names_that_show_no_groups_make_one(names: list[str]) -> None:
    assert find_groups(name_files(*names), "prefix").group_count == 1


def test_copies_and_shifted_light_are_one_content_and_other_photographs_are_not(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    pictures = [make_surface(rng, 128) for _ in range(10)]
    darker = np.rint(pictures[0] * 0.85).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", pictures[1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    copies = [darker, cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), pictures[2]]
    grouping = find_groups(write_pictures(tmp_path, [*pictures, *copies]))
    assert grouping.rule == "content"
    assert grouping.group_count == 10
    assert grouping.labels[10:] == grouping.labels[:3]


def test_overlapping_crops_of_one_photograph_are_one_content(tmp_path: Path, rng: np.random.Generator) -> None:
    crops = []
    for _ in range(3):
        photograph = make_surface(rng, 256)
        crops += [photograph[y : y + 112, x : x + 112] for y in (0, 72, 144) for x in (0, 72, 144)]
    grouping = find_groups(write_pictures(tmp_path, crops))
    assert group_sizes(grouping.labels) == [9, 9, 9]
    assert len(set(grouping.labels[:9])) == 1


def test_what_all_images_have_alike_joins_none(tmp_path: Path, rng: np.random.Generator) -> None:
    part = make_surface(rng, 128) // 2
    pictures = [part + make_surface(rng, 128) // 4 for _ in range(12)]
    assert find_groups(write_pictures(tmp_path, pictures)).rule == "none"


def test_even_surfaces_are_groups_of_their_own(tmp_path: Path) -> None:
    pictures = [np.full((40, 50), 10 * index, np.uint8) for index in range(9)]
    assert find_groups(write_pictures(tmp_path, pictures), "content").group_count == 9


def test_many_images_are_compared_moved_with_their_neighbours(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndp_rt.images.groups.PAIRS", 1)
    photograph = make_surface(rng, 256)
    crops = [photograph[:112, x : x + 112] for x in (0, 56, 112)]
    others = [make_surface(rng, 112) for _ in range(6)]
    grouping = find_groups(write_pictures(tmp_path, [*crops, *others, crops[0]]))
    assert group_sizes(grouping.labels) == [1, 1, 1, 1, 1, 1, 4]


def test_a_pattern_names_the_group() -> None:
    paths = name_files("cam1_lot7_a", "cam2_lot7_b", "cam1_lot8_c")
    assert find_groups(paths, r"lot\d").labels == ("lot7", "lot7", "lot8")
    assert find_groups(paths, r"cam(\d)").labels == ("1", "2", "1")
    assert "by the pattern lot" in find_groups(paths, r"lot\d").describe()


@pytest.mark.parametrize(("rule", "message"), [("lot(", "regular expression, got 'lot\\('"), ("day", "does not")])
def test_rejects_patterns_that_do_not_serve(rule: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_groups(name_files("lot7_1", "lot7_2"), rule)


def test_none_makes_every_image_a_group() -> None:
    grouping = find_groups(name_files("a_1", "a_2", "a_3"), "none")
    assert grouping.group_count == 3
    assert grouping.describe() == "each image a group of its own"


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageFileError, match=r"a\.png"):
        find_groups([tmp_path / "a.png"], "content")


@pytest.mark.parametrize("rule", ["auto", "none", "folder", "prefix"])
def test_copies_of_one_photograph_count_once_whatever_the_rule(
    tmp_path: Path, rng: np.random.Generator, rule: str
) -> None:
    photograph, others = make_surface(rng, 128), [make_surface(rng, 128) for _ in range(3)]
    copies = [cv2.imdecode(cv2.imencode(".jpg", photograph, [1, quality])[1], 0) for quality in range(50, 90, 2)]
    copies += [np.rint(photograph * 0.9).astype(np.uint8), cv2.resize(photograph, (100, 100))]
    paths = []
    for number, picture in enumerate([*copies, *others]):
        paths.append(tmp_path / f"lot{number}" / f"lot{number}_1.png")
        paths[-1].parent.mkdir()
        cv2.imwrite(str(paths[-1]), picture)
    found = find_independent(paths, rule)
    assert len(set(found.labels[: len(copies)])) == 1
    if rule in ("none", "folder"):
        assert found.group_count == 4
        assert f"{len(copies) - 1} image(s) are copies of others" in found.describe()

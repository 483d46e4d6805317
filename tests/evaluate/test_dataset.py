"""Listing labelled images and reading their masks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.evaluate.dataset import GOOD, list_labelled, list_samples, load_mask, read_mask
from tests.images.encodings import encode_tiff, encode_with_pillow, turn


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def make_data(root: Path) -> Path:
    """Write two good images, one crack with a mask, and one hole with none."""
    image = np.full((6, 8), 90, np.uint8)
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:5] = 255
    for name in ("test/good/b.png", "test/good/a.png", "test/crack/a.png", "test/hole/a.png"):
        write_png(root / name, image)
    write_png(root / "ground_truth/crack/a_mask.png", mask)
    return root


def test_lists_good_images_first_and_finds_the_masks(tmp_path: Path) -> None:
    samples = list_samples(make_data(tmp_path))
    assert [(one.kind, one.path.name) for one in samples] == [
        (GOOD, "a.png"),
        (GOOD, "b.png"),
        ("crack", "a.png"),
        ("hole", "a.png"),
    ]
    assert [one.mask_paths for one in samples] == [(), (), (tmp_path / "ground_truth/crack/a_mask.png",), ()]


def test_takes_a_mask_of_the_same_name_without_suffix(tmp_path: Path) -> None:
    make_data(tmp_path)
    other = write_png(tmp_path / "ground_truth/hole/a.bmp", np.zeros((6, 8), np.uint8))
    assert list_samples(tmp_path)[-1].mask_paths == (other,)


def test_leaves_hidden_files_and_folders_out(tmp_path: Path) -> None:
    make_data(tmp_path)
    (tmp_path / "test/good/.DS_Store").write_bytes(b"x")
    (tmp_path / "test/.cache").mkdir()
    (tmp_path / "test/.cache/a.png").write_bytes(b"x")
    assert len(list_samples(tmp_path)) == 4


def test_names_what_is_not_used(tmp_path: Path) -> None:
    make_data(tmp_path)
    (tmp_path / "test/crack/notes.txt").write_text("x")
    (tmp_path / "test/readme.md").write_text("x")
    (tmp_path / "ground_truth/crack/a_mask.json").write_text("{}")
    write_png(tmp_path / "ground_truth/crack/z_mask.png", np.zeros((6, 8), np.uint8))
    found = {one.path.relative_to(tmp_path).as_posix(): one.reason for one in list_labelled(tmp_path).left_out}
    assert found == {
        "test/crack/notes.txt": "no image",
        "test/readme.md": "lies beside the folders of kinds",
        "ground_truth/crack/a_mask.json": "no image",
        "ground_truth/crack/z_mask.png": "a mask that no image uses",
    }


def test_images_in_sub_folders_and_behind_links_are_taken_with_their_masks(tmp_path: Path) -> None:
    image, mask = np.full((6, 8), 90, np.uint8), np.eye(6, 8, dtype=np.uint8)
    make_data(tmp_path)
    for name in ("day1/b", "day1/c", "day2/c", "day2/d"):
        write_png(tmp_path / f"test/crack/{name}.png", image)
    masks = [write_png(tmp_path / f"ground_truth/crack/{name}_mask.png", mask) for name in ("day1/c", "day2/c", "d")]
    (tmp_path / "test/hole/gone.png").symlink_to("nowhere")
    found = {one.path.relative_to(tmp_path / "test").as_posix(): one for one in list_samples(tmp_path)}
    assert found["crack/day1/c.png"].mask_paths == (masks[0],)
    assert found["crack/day2/c.png"].mask_paths == (masks[1],)
    assert found["crack/day2/d.png"].mask_paths == (masks[2],)
    assert found["crack/day1/b.png"].mask_problem is not None
    assert "hole/gone.png" in found  # which becomes an error when it is read


def test_images_of_one_name_share_no_mask(tmp_path: Path) -> None:
    make_data(tmp_path)
    write_png(tmp_path / "test/crack/a.bmp", np.full((6, 8), 90, np.uint8))
    cracks = [one for one in list_samples(tmp_path) if one.kind == "crack"]
    assert [one.mask_paths for one in cracks] == [(), ()]
    assert all("got a.bmp and a.png: it cannot be told whose it is" in str(one.mask_problem) for one in cracks)


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    make_data(tmp_path)
    write_png(tmp_path / "ground_truth/crack/a_mask.bmp", np.eye(6, 8, dtype=np.uint8))
    (crack,) = (one for one in list_samples(tmp_path) if one.kind == "crack")
    assert crack.mask_paths == () and "got a_mask.bmp and a_mask.png" in str(crack.mask_problem)


def test_a_folder_of_masks_marks_parts_of_one_defect(tmp_path: Path) -> None:
    make_data(tmp_path)
    for number, place in enumerate(((1, 1), (4, 6))):
        mask = np.zeros((6, 8), np.uint8)
        mask[place] = 255 - number  # MVTec LOCO: each value stands for a kind of anomaly
        write_png(tmp_path / f"ground_truth/hole/a/{number:03d}.png", mask)
    (hole,) = (one for one in list_samples(tmp_path) if one.kind == "hole")
    assert [one.name for one in hole.mask_paths] == ["000.png", "001.png"]
    assert np.argwhere(load_mask(hole, 6, 8)).tolist() == [[1, 1], [4, 6]]


def test_a_mask_that_marks_most_of_the_image_is_refused_as_inverted(tmp_path: Path) -> None:
    mask = np.full((5, 7), 255, np.uint8)
    mask[2, 2:4] = 0
    with pytest.raises(DataError, match="94% of its pixels marked. If good and defect are swapped, invert it"):
        read_mask(write_png(tmp_path / "m.png", mask), 5, 7)


def test_a_mask_whose_marking_is_in_alpha_is_refused(tmp_path: Path) -> None:
    alpha = np.eye(5, 7, dtype=np.uint8) * 255
    for value in (0, 255):
        for pixels in (np.dstack([np.full((5, 7, 3), value, np.uint8), alpha]),):
            with pytest.raises(DataError, match="a transparent part"):
                read_mask(write_png(tmp_path / "m.png", pixels), 5, 7)
    grey = np.dstack([np.full((5, 7), 255, np.uint8), alpha])
    (tmp_path / "m.tif").write_bytes(encode_tiff(grey, photometric="minisblack", extrasamples=["unassalpha"]))
    with pytest.raises(DataError, match="a transparent part"):
        read_mask(tmp_path / "m.tif", 5, 7)
    opaque = np.dstack([np.repeat(alpha[..., None], 3, axis=2), np.full((5, 7), 255, np.uint8)])
    assert read_mask(write_png(tmp_path / "m.png", opaque), 5, 7).sum() == 5


def test_a_mask_has_to_be_turned_as_its_image_is(tmp_path: Path) -> None:
    mask = np.eye(5, 7, dtype=np.uint8)
    with pytest.raises(DataError, match=r"EXIF orientation 3\), got 1. Save both upright"):
        read_mask(write_png(tmp_path / "m.png", mask), 5, 7, orientation=3)
    exif = Pillow.Exif()
    exif[0x0112] = 3
    (tmp_path / "m.png").write_bytes(encode_with_pillow(turn(mask, 3), "PNG", exif=exif))
    assert np.array_equal(read_mask(tmp_path / "m.png", 5, 7, orientation=3), mask != 0)
    with pytest.raises(DataError, match=r"EXIF orientation 1\), got 3"):
        read_mask(tmp_path / "m.png", 5, 7)


def test_names_the_layout_when_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder"):
        list_samples(tmp_path / "missing")


def test_says_what_it_found_when_there_is_no_test_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="expected a folder .test., got train"):
        list_samples(tmp_path)


def test_rejects_data_without_good_images(tmp_path: Path) -> None:
    make_data(tmp_path)
    for path in (tmp_path / "test/good").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="expected good images"):
        list_samples(tmp_path)


def test_rejects_data_with_good_images_alone(tmp_path: Path) -> None:
    write_png(tmp_path / "test/good/a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="got good ones only"):
        list_samples(tmp_path)


@pytest.mark.parametrize("value", [1, 128, 255])
def test_any_value_but_zero_is_the_defect(tmp_path: Path, value: int) -> None:
    pixels = np.zeros((5, 7), np.uint8)
    pixels[1, 2] = value
    mask = read_mask(write_png(tmp_path / "m.png", pixels), 5, 7)
    assert mask.dtype == np.bool_
    assert mask.sum() == 1 and mask[1, 2]


def test_takes_a_mask_whose_three_channels_are_equal(tmp_path: Path) -> None:
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[0, 0] = 255
    assert read_mask(write_png(tmp_path / "m.png", pixels), 5, 7).sum() == 1


def test_takes_a_mask_that_covers_the_image(tmp_path: Path) -> None:
    assert read_mask(write_png(tmp_path / "m.png", np.full((5, 7), 255, np.uint8)), 5, 7).all()


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.eye(5, 6, dtype=np.uint8), "its image.s 5 x 7 pixels, got 5 x 6"),
        (np.arange(35, dtype=np.uint8).reshape(5, 7), "35 values from 0 to 34"),
        (np.pad(np.full((3, 5), 9, np.uint8), 1, constant_values=3), "2 values from 3 to 9"),
        (np.zeros((5, 7), np.uint8), "got 0 alone"),
        (np.stack([np.eye(5, 7, dtype=np.uint8)] * 2 + [np.zeros((5, 7), np.uint8)], axis=2), "colours"),
    ],
)
def test_rejects_a_mask_that_does_not_fit(tmp_path: Path, pixels: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_mask(write_png(tmp_path / "m.png", pixels), 5, 7)


def test_rejects_a_mask_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(ImageFileError):
        read_mask(tmp_path / "m.png", 5, 7)

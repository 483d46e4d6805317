"""Which images a run trains on: layouts, the calibration slice, and folders that don't do."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.errors import DataError, ImageFileError
from ndp_rt.export.data.images import GoodImages, to_network
from ndp_rt.export.data.split import fingerprint_files, split_data
from ndp_rt.export.training.run_folder import RunFolder
from ndp_rt.images.listing import list_folder
from ndp_rt.program.manifest import InputContract
from tests.images.encodings import draw_surface, encode_tiff

CONTRACT = InputContract(height_px=64, width_px=128)


def write_images(folder: Path, count: int, shape: tuple[int, ...] = (20, 30)) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:02d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, shape, np.uint8))
    return paths


def test_takes_mvtecs_layout(tmp_path: Path) -> None:
    good = write_images(tmp_path / "train" / "good", 10)
    write_images(tmp_path / "test" / "crack", 3)
    split = split_data(tmp_path, holdout=0.2, seed=0)
    assert split.layout == "mvtec"
    assert len(split.calibration) == 2
    assert sorted([*split.training, *split.calibration]) == good


def test_takes_a_flat_folder_and_leaves_other_files_alone(tmp_path: Path) -> None:
    good = write_images(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert split_data(tmp_path, holdout=0.0, seed=0).training == tuple(good)


def test_a_validation_folder_is_the_calibration_slice(tmp_path: Path) -> None:
    good = write_images(tmp_path / "train" / "good", 5)
    validation = write_images(tmp_path / "validation" / "good", 3, (21, 30))  # no copies of the others
    split = split_data(tmp_path, holdout=0.5, seed=0)
    assert split.training == tuple(good)
    assert split.calibration == tuple(validation)


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    write_images(tmp_path, 30)
    first = split_data(tmp_path, holdout=0.2, seed=1)
    assert first == split_data(tmp_path, holdout=0.2, seed=1)
    assert first.calibration != split_data(tmp_path, holdout=0.2, seed=2).calibration
    assert not set(first.training) & set(first.calibration)


def write_named(folder: Path, names: Iterable[str], rng: np.random.Generator) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in names]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (20, 30), np.uint8))
    return sorted(paths)


def test_holds_out_whole_groups_near_the_share(tmp_path: Path, rng: np.random.Generator) -> None:
    write_named(tmp_path, [f"sheet{sheet}_{number}" for sheet in range(10) for number in range(6)], rng)
    for seed in range(5):
        split = split_data(tmp_path, holdout=0.2, seed=seed)
        assert len(split.calibration) == 12
        assert set(split.calibration_groups) == {path.name.split("_")[0] for path in split.calibration}
        assert len(set(split.calibration_groups)) == 2
        assert not set(split.calibration_groups) & {path.name.split("_")[0] for path in split.training}
        assert split.notes == ("groups of good images: 10 group(s), by the beginning of their names",)


@pytest.mark.parametrize("group_count", [3, 4])
def test_leaves_two_groups_to_train_on(tmp_path: Path, rng: np.random.Generator, group_count: int) -> None:
    write_named(tmp_path, [f"sheet{sheet}_{number}" for sheet in range(group_count) for number in range(6)], rng)
    split = split_data(tmp_path, holdout=0.9, seed=0)
    assert len({path.name.split("_")[0] for path in split.training}) == 2


def test_does_not_hold_out_a_group_much_larger_than_the_share(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"large_{number}" for number in range(40)] + [f"s{sheet}_{number}" for sheet in "abc" for number in "123"]
    write_named(tmp_path, names, rng)
    for seed in range(5):
        assert "large" not in split_data(tmp_path, holdout=0.1, seed=seed).calibration_groups


@pytest.mark.parametrize("group_count", [1, 2])
def test_too_few_groups_are_split_by_images_and_it_is_said(
    tmp_path: Path, rng: np.random.Generator, group_count: int
) -> None:
    write_named(tmp_path, [f"day{number % group_count}_{number}" for number in range(20)], rng)
    split = split_data(tmp_path, holdout=0.5, seed=0, group_by=r"day\d")
    assert len(split.calibration) == 10
    assert len(set(split.calibration_groups)) == group_count
    assert f"expected 3 groups or more to hold whole ones out, got {group_count}" in split.notes[-1]


def test_the_given_rule_decides(tmp_path: Path, rng: np.random.Generator) -> None:
    write_named(tmp_path, [f"sheet{sheet}_{number}" for sheet in range(10) for number in range(6)], rng)
    split = split_data(tmp_path, holdout=0.2, seed=0, group_by="none")
    assert len(set(split.calibration_groups)) == len(split.calibration) == 12
    assert not split.notes


def test_sub_folders_are_read_and_are_groups(tmp_path: Path, rng: np.random.Generator) -> None:
    for day in range(4):
        write_named(tmp_path / "train" / "good" / f"day{day}", "abcdefgh", rng)
    split = split_data(tmp_path, holdout=0.25, seed=0)
    assert len(split.training) == 24
    assert len({path.parent for path in split.calibration}) == 1


def test_a_flat_folder_of_sub_folders_is_read_without_runs_bundles_and_defects(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in ("monday", "tuesday", "run", "tiles.ndp", ".hidden", "test"):
        write_named(tmp_path / name, "abcd", rng)
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "tiles.ndp" / "manifest.json").write_text('{"format": "ndp-rt bundle"}')
    split = split_data(tmp_path, holdout=0.0, seed=0)
    assert {path.parent.name for path in split.training} == {"monday", "tuesday"}
    for name, why in (("run", "a training run"), ("tiles.ndp", "a bundle"), (".hidden", "is hidden")):
        assert f"{tmp_path / name} ({why})" in split.notes[0]
    assert f"{tmp_path / 'test'} (no training images, by its name)" in split.notes[0]


def test_images_beside_sub_folders_are_taken_with_theirs_and_it_is_said(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    flat, below = write_named(tmp_path, "abcd", rng), write_named(tmp_path / "monday", "efgh", rng)
    split = split_data(tmp_path, holdout=0.0, seed=0)
    assert split.training == (*flat, *below)
    assert split.notes[0] == "4 of 8 good images lie in sub-folders: monday"


def test_copies_are_counted_and_taken_once(tmp_path: Path, rng: np.random.Generator) -> None:
    good = write_named(tmp_path / "train" / "good", "abcdefgh", rng)
    validation = write_named(tmp_path / "validation" / "good", "xyz", rng)
    shutil.copy(good[0], good[0].with_name("i.png"))
    shutil.copy(validation[0], good[0].with_name("j.png"))
    split = split_data(tmp_path, holdout=0.5, seed=0)
    assert split.training == tuple(good) and split.calibration == tuple(validation)
    assert split.notes[0].startswith("2 image(s) are copies of others and left out, such as i.png of a.png")


def test_a_dead_cameras_frames_are_neither_trained_on_nor_held_out(tmp_path: Path, rng: np.random.Generator) -> None:
    good = write_named(tmp_path, "abcdefgh", rng)
    for name, level in (("black", 0), ("white", 255)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30), level, np.uint8))
    split = split_data(tmp_path, holdout=0.3, seed=0)
    assert sorted([*split.training, *split.calibration]) == good
    words = "2 frame(s) of a dead camera are left out (2 constant): black.png, white.png"
    assert split.notes[0] == words


def test_images_that_are_all_alike_are_called_copies(tmp_path: Path, rng: np.random.Generator) -> None:
    first = write_named(tmp_path, "a", rng)[0]
    for name in "bcdefghij":
        shutil.copy(first, first.with_name(f"{name}.png"))
    with pytest.raises(
        DataError, match=r"got 1\. 9 image\(s\) are copies of others and left out, such as b\.png of a\.png"
    ):
        split_data(tmp_path, holdout=0.2, seed=0)


def test_dead_frames_alone_are_refused_by_name(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 30), 50 * index, np.uint8))
    with pytest.raises(DataError, match=r"got 0\. 4 frame\(s\) of a dead camera .*0\.png, 1\.png, 2\.png and 1 more"):
        split_data(tmp_path, holdout=0.2, seed=0)


def test_an_image_that_cannot_be_compared_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    write_named(tmp_path, "abcdefgh", rng)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"good image cannot be used: .*a\.png"):
        split_data(tmp_path, holdout=0.2, seed=0)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_rejects_folders_with_too_few_good_images(tmp_path: Path, count: int) -> None:
    write_images(tmp_path, count)
    with pytest.raises(DataError, match="expected images" if count == 0 else "expected at least 2 good images"):
        split_data(tmp_path, holdout=0.1, seed=0)


def test_rejects_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no folder"):
        split_data(tmp_path / "missing", holdout=0.1, seed=0)


def test_rejects_a_train_folder_without_good(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "fine", 3)
    with pytest.raises(DataError, match="expected the good images in train/good"):
        split_data(tmp_path, holdout=0.1, seed=0)


def test_fingerprints_change_with_content_and_name(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 2)
    rows, digest = fingerprint_files(tmp_path, paths)
    assert [row["path"] for row in rows] == ["00.png", "01.png"]
    assert fingerprint_files(tmp_path, paths[:1])[1] != digest
    paths[0].write_bytes(b"changed")
    assert fingerprint_files(tmp_path, paths)[1] != digest
    with pytest.raises(ImageFileError):
        fingerprint_files(tmp_path, [tmp_path / "missing.png"])


def test_grey_images_stay_one_channel_until_one_is_coloured(tmp_path: Path) -> None:
    grey = write_images(tmp_path / "grey", 2)
    colour = write_images(tmp_path / "colour", 1, (40, 200, 3))
    assert GoodImages(grey, CONTRACT)[0].shape == (64, 128, 1)
    mixed = GoodImages([*grey, *colour], CONTRACT)
    assert [mixed[index].shape for index in range(3)] == [(64, 128, 3)] * 3


def test_sixteen_bit_and_rgba_images_are_taken(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((10, 10), 65535, np.uint16))
    cv2.imwrite(str(tmp_path / "rgba.png"), np.full((10, 10, 4), (255, 0, 0, 7), np.uint8))
    images = GoodImages(list_folder(tmp_path).files, CONTRACT)
    np.testing.assert_array_equal(images[0], 1.0)
    np.testing.assert_array_equal(images[1][0, 0], [0.0, 0.0, 1.0])


def test_images_beyond_the_memory_are_read_again_and_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(paths[-1]), rng.integers(0, 256, (50, 70), np.uint8))
    kept, reread = GoodImages(paths, CONTRACT), GoodImages(paths, CONTRACT, memory_bytes=20_000)
    for index in range(3):
        np.testing.assert_array_equal(kept[index], reread[index])


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 2)
    paths[1].write_bytes(paths[1].read_bytes()[:40])
    with pytest.raises(DataError, match="01.png"):
        GoodImages(paths, CONTRACT)


def test_to_network_replicates_grey() -> None:
    batch = to_network([np.full((4, 6, 1), 0.5, np.float32)] * 2)
    assert batch.shape == (2, 3, 4, 6)
    assert (batch == 0.5).all()


def test_names_that_are_no_utf8_have_fingerprints_and_a_run_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.png"
    path.write_bytes(b"x")
    rows, _ = fingerprint_files(tmp_path, [path])
    run_dir = RunFolder(path=tmp_path)
    run_dir.write_json("data.json", rows)
    assert run_dir.read_json("data.json")[0]["path"] == "caf\udce9.png"


def test_a_split_takes_the_page_that_was_chosen(tmp_path: Path, rng: np.random.Generator) -> None:
    for index in range(4):
        pages = np.stack([draw_surface(rng), draw_surface(rng)])
        (tmp_path / f"{index}.tif").write_bytes(encode_tiff(pages, photometric="minisblack"))
    split = split_data(tmp_path, holdout=0.25, seed=0, page=2)
    assert sorted(path.name for path in split.training + split.calibration) == [f"{index}.tif[2]" for index in range(4)]
    rows, _ = fingerprint_files(tmp_path, split.training)
    assert rows[0]["bytes"] == (tmp_path / "0.tif").stat().st_size

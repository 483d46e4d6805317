"""Which files a command line's paths mean, and what is said of the others."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.images import listing as module
from ndp_rt.images.listing import Listing, describe_left_out, list_folder, list_images
from tests.images.encodings import encode_with_pillow

PNG = encode_with_pillow(np.zeros((4, 4), np.uint8), "PNG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "notes.txt", "sub/c.tif", "sub/.hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(folder: Path, *paths: str, **settings: Path) -> list[str]:
    listing = list_images([str(folder / path) for path in paths], **settings)
    return [str(path.relative_to(folder)) for path in listing.files]


def reasons(listing: Listing, folder: Path) -> dict[str, str]:
    return {str(one.path.relative_to(folder)): one.reason for one in listing.left_out}


def test_a_folder_gives_the_images_below_it_and_says_what_else_is_there(folder: Path) -> None:
    assert names(folder, ".") == ["a.jpg", "b.PNG", "sub/c.tif"]
    assert reasons(list_images([str(folder)]), folder) == {
        "notes.txt": "is empty",
        "sub/.hidden.png": "is hidden",
        ".git": "is hidden",
    }
    assert names(folder, ".", excluded=folder / "sub") == ["a.jpg", "b.PNG"]
    assert reasons(list_images([str(folder)], folder / "sub"), folder)["sub"] == "the results"


@pytest.mark.parametrize("name", ["a", "a.jfif", "a.jpe", "a.txt", "a.dat", "a.PNG"])
def test_content_decides_and_not_the_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PNG)
    assert list_folder(tmp_path).files == (tmp_path / name,)


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "JPEG2000", "DIB", "ICO"])
def test_images_that_are_not_read_are_taken_so_that_they_become_errors(tmp_path: Path, kind: str) -> None:
    (tmp_path / "without suffix").write_bytes(encode_with_pillow(np.zeros((32, 32, 3), np.uint8), kind))
    assert list_folder(tmp_path).files == (tmp_path / "without suffix",)


def test_a_file_that_is_called_an_image_and_is_none_is_taken_so_that_it_becomes_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.heic", "c.jpg"):
        (tmp_path / name).write_bytes(b"hello")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in list_folder(tmp_path).files] == ["a.png", "b.heic", "c.jpg", "gone", "gone.png"]


def test_a_folder_is_a_bundle_by_its_manifest_and_not_by_its_name(tmp_path: Path) -> None:
    for name in ("lot.ndp", "bundle", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(PNG)
    (tmp_path / "bundle" / "manifest.json").write_text('{"format": "ndp-rt bundle"}')
    (tmp_path / "run" / "run.json").write_text("{}")
    listing = list_folder(tmp_path)
    assert listing.files == (tmp_path / "lot.ndp" / "a.png",)
    assert reasons(listing, tmp_path) == {"bundle": "a bundle", "run": "a training run"}


def test_links_are_followed_and_no_folder_is_searched_twice(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").write_bytes(PNG)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    for name, target in (("linked", "elsewhere"), ("again", "elsewhere"), ("deep/up", "in"), ("loop", "in/loop")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    listing = list_folder(tmp_path / "in")
    found = [path.relative_to(tmp_path).as_posix() for path in listing.files]
    assert found == ["in/a.png", "in/again/b.png", "in/loop"]  # the last cannot be read, which its reader says
    assert reasons(listing, tmp_path) == {
        "in/linked": f"is {tmp_path / 'in' / 'again'} again",
        "in/deep/up": f"is {tmp_path / 'in'} again",
    }


def test_a_pattern_of_any_depth_ends_where_links_run_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.png").write_bytes(PNG)
    (tmp_path / ".c").mkdir()
    (tmp_path / ".c" / "d.png").write_bytes(PNG)
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    assert names(tmp_path, "**/*.png") == ["a/b.png"]
    assert names(tmp_path, "**") == ["a/b.png"]
    assert names(tmp_path, "a/**/b.*") == ["a/b.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix's")
def test_a_pipe_in_a_folder_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(PNG)
    found: list[Listing] = []
    thread = threading.Thread(target=lambda: found.append(list_folder(tmp_path)), daemon=True)
    thread.start()
    thread.join(60)
    assert found and reasons(found[0], tmp_path) == {"a.png": "is a pipe or a device"}


def test_what_is_left_out_is_named_and_moves_no_cursor(tmp_path: Path) -> None:
    for index in range(25):
        (tmp_path / f"{index:02d}.txt").write_text("x")
    (tmp_path / "00\x1b[2J\n.txt").write_text("x")
    (tmp_path / "a.png").write_bytes(PNG)
    text = describe_left_out(list_folder(tmp_path).left_out)
    assert text.startswith("26 entries left out: ") and text.endswith("and 6 more")
    assert "\x1b" not in text and "\n" not in text and r"00\x1b[2J\n.txt (no image)" in text


def test_a_folder_with_no_image_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"got none but 1 entry left out: .*notes\.txt \(no image\)\. Give"):
        list_images([str(tmp_path)])


def test_a_file_is_taken_whatever_its_name_and_missing_ones_beside_others(folder: Path) -> None:
    assert names(folder, "notes.txt", "gone.png", "sub/.hidden.png") == ["notes.txt", "gone.png", "sub/.hidden.png"]


def test_a_pattern_gives_its_files(folder: Path) -> None:
    assert names(folder, "*.PNG", "**/*.tif") == ["b.PNG", "sub/c.tif"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "[1].png").write_bytes(b"")
    assert names(folder, "[1].png") == ["[1].png"]


def test_each_file_comes_once_in_the_order_given(folder: Path) -> None:
    assert names(folder, "b.PNG", "sub/../b.PNG", ".") == ["b.PNG", "a.jpg", "sub/c.tif"]
    left_out = list_images([str(folder / "notes.txt"), str(folder)]).left_out
    assert "notes.txt" not in [one.path.name for one in left_out]  # it was named, so it was taken


@pytest.mark.parametrize("path", ["gone.png", "*.bmp", "empty"])
def test_refuses_what_means_no_file(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"Give|Quote"):
        list_images([str(folder / path)])


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
        if path.name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"sub: cannot be read \(Permission denied\)"):
        list_images([str(folder)])
    assert names(folder, "b.PNG") == ["b.PNG"]


def test_a_name_that_is_too_long_is_one_missing_file(folder: Path) -> None:
    assert names(folder, "b.PNG", "x" * 300) == ["b.PNG", "x" * 300]
    with pytest.raises(InputError, match="does not exist"):
        list_images([str(folder / ("x" * 300))])


def test_a_folder_is_sorted_as_paths_are(tmp_path: Path) -> None:
    for name in ("b.png", "b/z.png", "b/a/c.png", "b-1/a.png", "b.d/a.png", "B/a.png", "a.png", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    files = list_folder(tmp_path).files
    assert len(files) == 8 and list(files) == sorted(files)


def test_a_folder_that_goes_meanwhile_is_no_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identify = module._identify

    def remove(path: Path) -> tuple[int, int] | str:
        if path.name == "sub":
            shutil.rmtree(path, ignore_errors=True)
        return identify(path)

    monkeypatch.setattr(module, "_identify", remove)
    assert names(folder, ".") == ["a.jpg", "b.PNG"]

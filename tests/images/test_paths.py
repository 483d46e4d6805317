"""Which files a command line's paths mean."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndp_rt.errors import InputError
from ndp_rt.images.paths import list_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "notes.txt", "sub/c.tif", "sub/.hidden.png", ".git/d.png", "x.ndp/reference.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(folder: Path, *paths: str, **settings: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in list_images([str(folder / path) for path in paths], **settings)]


def test_a_folder_gives_the_images_below_it(folder: Path) -> None:
    assert names(folder, ".") == ["a.jpg", "b.PNG", "sub/c.tif"]
    assert names(folder, ".", excluded=folder / "sub") == ["a.jpg", "b.PNG"]


def test_a_file_is_taken_whatever_its_name_and_missing_ones_beside_others(folder: Path) -> None:
    assert names(folder, "notes.txt", "gone.png", "sub/.hidden.png") == ["notes.txt", "gone.png", "sub/.hidden.png"]


def test_a_pattern_gives_its_files(folder: Path) -> None:
    assert names(folder, "*.PNG", "**/*.tif") == ["b.PNG", "sub/c.tif"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "[1].png").write_bytes(b"")
    assert names(folder, "[1].png") == ["[1].png"]


def test_each_file_comes_once_in_the_order_given(folder: Path) -> None:
    assert names(folder, "b.PNG", "sub/../b.PNG", ".") == ["b.PNG", "a.jpg", "sub/c.tif"]


@pytest.mark.parametrize("path", ["gone.png", "*.bmp", "empty"])
def test_refuses_what_means_no_file(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"Give|Quote"):
        list_images([str(folder / path)])


def test_a_folder_that_cannot_be_read_is_not_left_out_in_silence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("sub"):
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

"""Chooses pages of image files with several: one number for all files, or every page."""

import os
from collections.abc import Sequence
from pathlib import Path

from ndp_rt.config import ImageLimits
from ndp_rt.errors import ImageFileError, InputError
from ndp_rt.images.checks import Image
from ndp_rt.images.formats.encoded import Canvas
from ndp_rt.images.page_names import name_page, split_page
from ndp_rt.images.read import count_pages, decode_image, read_bytes, read_image

ALL = "all"


def choose_pages(files: Sequence[Path], page: int | str | None) -> list[Path]:
    """Return the paths to read, in the order of `files`: of a file with several pages those that were chosen.

    A file that has no such page, or that cannot be read, stays among them, so that reading it is an error of its own.

    Args:
        files: image files; one that names a page already stays as it is.
        page: counted from 1, ALL, or None for files of one picture.

    Raises:
        InputError: another file has the name of a page, and would be read in its place.
    """
    if page is None:
        return list(files)
    chosen = list[Path]()
    for path in files:
        count = 1 if split_page(path)[1] is not None else _count(path)
        if page == ALL:
            chosen += [path] if count == 1 else [_name_page(path, number + 1) for number in range(count)]
        else:
            chosen.append(path if count == page == 1 else _name_page(path, int(page)))
    return chosen


class PageReader:
    """Reads images one after another. A file is read, and a frame decoded, once for pages that follow each other.

    One file is kept.
    """

    def __init__(self, *, white_level: int) -> None:
        self._white_level = white_level
        self._file: str | Path | None = None
        self._content = b""
        self._canvas = Canvas()

    def read(self, path: Path) -> Image:
        """Return an image file, or one of its pages, as `read_image` does.

        Raises:
            ImageFileError: as `read_image`.
        """
        file, page = split_page(path)
        if file != self._file:
            self._file, self._content, self._canvas = None, b"", Canvas()
        if page is None:
            return read_image(path, white_level=self._white_level)
        if self._file is None:
            self._content = read_bytes(file, ImageLimits())
            self._file = file
        return decode_image(
            self._content, name=str(path), white_level=self._white_level, page=page, canvas=self._canvas
        )


def _name_page(path: Path, page: int) -> Path:
    named = name_page(path, page)
    if os.path.lexists(named):
        raise InputError(f"{named}: expected page {page} of {path.name}, got a file of that very name. Rename it.")
    return named


def _count(path: Path) -> int:
    try:
        return count_pages(path)
    except ImageFileError:
        return 1

"""Names of the pages of image files: `scan.tif[2]` is the second page of scan.tif, unless a file has that very name."""

import os
import re
from pathlib import Path

NAME = re.compile(r"(.+)\[([0-9]{1,6})\]", re.DOTALL)


def split_page(path: str | Path) -> tuple[str | Path, int | None]:
    """Return the file that a path names, and which of its pages; None: the path names a file alone."""
    match = NAME.fullmatch(str(path))
    if match is None or _exists(path) or not _exists(match[1]):
        return path, None
    return match[1], int(match[2])


def name_page(path: Path, page: int) -> Path:
    """Return the path of a file's page, counted from 1."""
    return Path(f"{path}[{page}]")


def _exists(path: str | Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a zero byte
        return False

"""Lists the image files that the paths of a command line name."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ndp_rt.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm"})


def list_images(paths: Sequence[str], excluded: Path | None = None) -> list[Path]:
    """Return the files that `paths` name, each once, in the order of `paths`, folders and patterns sorted.

    A file is listed whatever its name, even if it is missing: it then becomes a row of the results. A folder gives
    the files below it with an image's suffix; hidden ones, bundles and `excluded` are left out. Anything with `*`, `?`
    or `[` that is no file is a pattern (`**` for any depth).

    Args:
        paths: files, folders and patterns.
        excluded: a folder that is not searched, such as that of the results.

    Raises:
        InputError: a folder or pattern with no image, a folder that cannot be read, or nothing that exists.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for file in _expand(path, excluded):
            found.setdefault(os.path.abspath(file), file)
    files = list(found.values())
    if not any(os.path.exists(file) for file in files):  # unlike Path's, False for a name that is too long
        names = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
        raise InputError(f"images: {names or 'no path'} does not exist. Give image files, folders or patterns.")
    return files


def _expand(path: str, excluded: Path | None) -> list[Path]:
    """Return the files that one path names."""
    if os.path.isdir(path):
        files = sorted(_walk(path, excluded))
        if not files:
            raise InputError(
                f"{path}: expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}, here or in subfolders, got "
                "none. Give another folder, or name the files."
            )
        return files
    if not os.path.lexists(path) and glob.has_magic(path):
        matches = [Path(name) for name in sorted(glob.glob(path, recursive=True)) if os.path.isfile(name)]
        if not matches:
            raise InputError(f"{path}: no file matches. Quote the pattern as '{path}', and check its folder.")
        return matches
    return [Path(path)]


def _walk(folder: str, excluded: Path | None) -> Iterator[Path]:
    skipped = None if excluded is None else os.path.abspath(excluded)
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not name.endswith(".ndp") and os.path.abspath(f"{parent}/{name}") != skipped
        ]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def _refuse(error: OSError) -> None:
    """Refuse a folder that cannot be read; os.walk would leave it out, and its images with it, without a word."""
    raise InputError(
        f"{error.filename}: cannot be read ({error.strerror}), so its images would be left out. Make it readable, or "
        "name the other folders."
    ) from error

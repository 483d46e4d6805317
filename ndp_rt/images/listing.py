"""Lists the image files that paths name: one listing for every command.

What an entry is, its content decides. Folders are searched with all that lies below, links are followed, and no folder
is searched twice. What is not taken is counted and named.
"""

import contextlib
import fnmatch
import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import InputError
from ndp_rt.images.page_names import split_page
from ndp_rt.images.read import SNIFFED_BYTES, sniff_kind
from ndp_rt.program.manifest import FORMAT

# A file of such a name is taken for an image whatever it holds: one that is empty or damaged is then an error.
IMAGE_SUFFIXES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".webp"})
IMAGE_SUFFIXES |= {".tif", ".tiff", ".btf", ".pgm", ".ppm", ".pnm", ".pbm", ".pam", ".gif", ".avif", ".heic", ".heif"}
IMAGE_SUFFIXES |= {".jp2", ".j2k", ".jpx", ".jxl", ".jls", ".jxr", ".wdp", ".qoi", ".psd", ".exr", ".hdr", ".tga"}
MANIFEST, RUN = "manifest.json", "run.json"  # of a bundle and of a training run
MANIFEST_BYTES = 2**16  # in which a bundle's manifest names its format
NAMED = 20  # entries that are named on the terminal


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An entry that was not taken, and why."""

    path: Path
    reason: str

    def describe(self) -> str:
        return f"{show_path(self.path)} ({self.reason})"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Image files, and the entries beside them that are none."""

    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __add__(self, other: "Listing") -> "Listing":
        return Listing(files=self.files + other.files, left_out=self.left_out + other.left_out)


def list_images(paths: Sequence[str], excluded: Path | None = None) -> Listing:
    """Return the files that `paths` name, each once, in the order of `paths`, folders and patterns sorted.

    A file is listed whatever it holds, even if it is missing: it then becomes a row of the results. A folder gives what
    `list_folder` does. Anything with `*`, `?` or `[` that is no file is a pattern (`**` for any depth);
    one that nothing matches may name a page of a file, as `scan.tif[2]` does.

    Args:
        paths: files, folders and patterns.
        excluded: a folder that is not searched, such as that of the results.

    Raises:
        InputError: a folder or pattern with no image, a folder that cannot be read, or nothing that exists.
    """
    found: dict[str, Path] = {}
    left_out: dict[str, LeftOut] = {}
    for one in find_images(paths, excluded):
        if isinstance(one, LeftOut):
            left_out.setdefault(os.path.abspath(one.path), one)
        else:
            found.setdefault(os.path.abspath(one), one)
    for name in found if left_out else ():
        left_out.pop(str(split_page(name)[0]), None)
    return Listing(files=tuple(found.values()), left_out=tuple(left_out.values()))


def find_images(paths: Sequence[str], excluded: Path | None = None) -> Iterator[Path | LeftOut]:
    """Yield what `list_images` returns, with what several paths name as often as they do.

    Memory holds the names in one folder at each depth.

    Raises:
        InputError: as `list_images`, perhaps after some were yielded.
    """
    missing, is_one_there = list[Path](), False
    for path in paths:
        for one in _expand(path, excluded):
            yield one
            if not is_one_there and isinstance(one, Path):
                # Unlike Path's, False for a name that is too long.
                is_one_there = os.path.exists(split_page(one)[0])
                missing.append(one)
    if not is_one_there:
        names = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise InputError(f"images: {names or 'no path'} does not exist. Give image files, folders or patterns.")


def _expand(path: str, excluded: Path | None) -> Iterator[Path | LeftOut]:
    """Yield the files that one path names."""
    if os.path.isdir(path):
        skipped = None if excluded is None else os.path.abspath(excluded)
        has_image, left_out = False, list[LeftOut]()  # before the first image
        for one in walk_folder(Path(path), lambda one: "the results" if os.path.abspath(one) == skipped else None):
            if isinstance(one, Path):
                has_image = True
            elif not has_image:
                left_out.append(one)
            yield one
        if not has_image:
            others = f" but {describe_left_out(left_out)}" if left_out else ""
            raise InputError(
                f"{path}: expected images, here or in subfolders, got none{others}. Give another folder, or name the "
                "files."
            )
    elif not os.path.lexists(path) and glob.has_magic(path):
        matches = sorted(_match(path))
        if not matches and split_page(path)[1] is None:
            raise InputError(f"{path}: no file matches. Quote the pattern as '{path}', and check its folder.")
        yield from matches or [Path(path)]
    else:
        yield Path(path)


def _match(pattern: str) -> list[Path]:
    """Return the files that a pattern means; `**` goes through every folder once, wherever links lead."""
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    if "**" not in parts:
        return [Path(name) for name in glob.glob(pattern) if os.path.isfile(name)]
    base = Path(*parts[:first])
    pending, seen, found = [base], set(), []
    while pending:
        folder = pending.pop()
        if folder.is_dir() and (identity := _identify(folder)) not in seen:
            seen.add(identity)
            for path in map(folder.joinpath, _list_names(folder)[0]):
                pending.append(path)
                if _fits(path.relative_to(base).parts, parts[first:]) and path.is_file():
                    found.append(path)
    return found


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a path's parts fit a pattern's; hidden ones fit only what begins with a dot."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and _fits(parts, pattern[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    if pattern[0] == "**":
        return _fits(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def list_folder(folder: Path, is_other: Callable[[Path], str | None] = lambda _: None) -> Listing:
    """Return what `walk_folder` yields."""
    files, left_out = list[Path](), list[LeftOut]()
    for one in walk_folder(folder, is_other):
        if isinstance(one, LeftOut):
            left_out.append(one)
        else:
            files.append(one)
    return Listing(files=tuple(files), left_out=tuple(left_out))


def walk_folder(folder: Path, is_other: Callable[[Path], str | None] = lambda _: None) -> Iterator[Path | LeftOut]:
    """Yield the images in a folder and below it, and all other entries, sorted.

    Taken are files that begin as an image does, and those that are named so: whatever cannot be read is an error of the
    caller's. Not taken are hidden entries, bundles, training runs, pipes and devices, and folders that were searched
    already, which a link may lead to.

    Args:
        folder: is searched itself, whatever it is called.
        is_other: of a path in it, tells why it is not taken; None: it may be.

    Raises:
        InputError: a folder cannot be read, so that its images would be missing.
    """
    try:
        seen = {_identify(folder): folder}
    except OSError as error:
        raise _unreadable(folder, error) from error
    pending = [_look_into(folder, seen, is_other)]
    while pending:
        for path, reason, is_folder in pending[-1]:
            if reason is not None:
                yield LeftOut(path=path, reason=reason)
            elif is_folder:
                pending.append(_look_into(path, seen, is_other, may_be_gone=True))
                break
            else:
                yield path
        else:
            pending.pop()


def _look_into(
    parent: Path,
    seen: dict[tuple[int, int] | str, Path],
    is_other: Callable[[Path], str | None],
    *,
    may_be_gone: bool = False,
) -> Iterator[tuple[Path, str | None, bool]]:
    """Yield the entries of a folder, why each is not taken, and whether it is a folder; note its folders in `seen`."""
    names, folders = _list_names(parent, may_be_gone=may_be_gone)
    reasons: dict[str, str | None] = {}
    for name in folders:  # before what lies in them, so that links from there do not come first
        path = parent / name
        reasons[name] = "is hidden" if name.startswith(".") else is_other(path)
        if reasons[name] is None:
            try:
                identity = _identify(path)
            except FileNotFoundError:  # removed since it was listed
                names.remove(name)
                continue
            reasons[name] = f"is {show_path(seen[identity])} again" if identity in seen else _name_folder(path)
            if reasons[name] is None:
                seen[identity] = path
    for name in names:
        path = parent / name
        if name in reasons:
            yield path, reasons[name], True
        else:
            yield path, "is hidden" if name.startswith(".") else is_other(path) or _refuse_file(path), False


def _list_names(folder: Path, *, may_be_gone: bool = False) -> tuple[list[str], list[str]]:
    """Return the names in a folder, and those of them that are folders', sorted as paths are."""
    names, folders = list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                with contextlib.suppress(OSError):  # a link in a circle, which its reader names
                    if entry.is_dir():
                        folders.append(entry.name)
    except OSError as error:
        if may_be_gone and isinstance(error, FileNotFoundError):  # removed since it was listed
            return [], []
        raise _unreadable(folder, error) from error
    return sorted(names, key=os.path.normcase), sorted(folders, key=os.path.normcase)


def _unreadable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: cannot be read ({error.strerror}), so its images would be left out. Make it readable, or name the "
        "other folders."
    )


def _identify(folder: Path) -> tuple[int, int] | str:
    """Return what is the same for two paths of one folder."""
    state = folder.stat()
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(folder)


def _name_folder(folder: Path) -> str | None:
    """Return what a folder is that no images are taken from."""
    if (folder / RUN).is_file():
        return "a training run"
    try:
        with (folder / MANIFEST).open("rb") as stream:
            is_bundle = f'"{FORMAT}"'.encode() in stream.read(MANIFEST_BYTES)
    except OSError:
        return None
    return "a bundle" if is_bundle else None


def _refuse_file(path: Path) -> str | None:
    """Return why a file is no image; None: it is one, is called one, or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "is a pipe or a device"
        with path.open("rb") as stream:
            head = stream.read(SNIFFED_BYTES)
    except OSError:
        return None
    if sniff_kind(head) is not None or path.suffix.lower() in IMAGE_SUFFIXES:
        return None
    return "no image" if head else "is empty"


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Return in words how many entries were left out, and their names."""
    entries = "entry" if len(left_out) == 1 else "entries"
    names = ", ".join(one.describe() for one in left_out[:NAMED])
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    return f"{len(left_out)} {entries} left out: {names}{more}"


def show_path(path: Path) -> str:
    """Return a path without the characters that would move a terminal's cursor or end its line."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(path))

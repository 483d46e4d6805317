"""Finds what comes into a hot folder, each content once, also over restarts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import InputError
from ndp_rt.folders.rotation import read_parts
from ndp_rt.images.listing import LeftOut, list_folder

DONE, GROWING = "was inspected", "may still be written"
FORGET_S = 3600.0  # after which a file that is gone may come again as another one
PARTIAL_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".filepart")  # of programs that copy, then rename


@dataclass(frozen=True, order=True)
class Content:
    """A file and which content of it: the oldest comes first."""

    modified_ns: int
    path: Path
    size_bytes: int


class HotFolder:
    """Finds the images of a folder, and below it, that are complete and not done.

    A file is complete when its size and time have not changed for so long; by looking, since notices of the system do
    not come over a network. Of a file that is done a new content is another image.
    """

    def __init__(self, folder: Path, settle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the folder.

        Args:
            folder: that is watched.
            settle_s: that a file stays unchanged before it is taken; 0: files are renamed into the folder.
            clock: seconds; for tests.

        Raises:
            InputError: there is no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder to watch, got none.")
        self.folder, self._settle_s, self._clock = folder, settle_s, clock
        self._seen: dict[Path, tuple[Content, float]] = {}  # and since when
        self._done: dict[Path, tuple[Content, float]] = {}  # and when it lay there last
        self._named: set[Path] = set()  # of what is left out

    def load_done(self, out: Path) -> None:
        """Take what earlier runs have inspected from their results, as far as it still lies in the folder.

        Raises:
            StorageError: a part is damaged.
        """
        there: dict[str, Path] = {}

        def note(path: Path) -> str | None:
            if path.is_dir():
                return None
            there[str(path)] = path
            return DONE

        list_folder(self.folder, note)
        for name, size_bytes, modified_ns in read_parts(out, ("path", "size_bytes", "modified_ns")):
            path = there.get(name)
            if path is not None and modified_ns is not None:
                self._done[path] = Content(modified_ns, path, size_bytes), self._clock()

    def poll(self) -> tuple[list[Content], list[LeftOut]]:
        """Return what is complete and not done, the oldest first, and what is no image, each once.

        Raises:
            InputError: the folder cannot be read.
        """
        contents: dict[Path, Content] = {}
        now = self._clock()

        def judge(path: Path) -> str | None:
            if path.name.lower().endswith(PARTIAL_SUFFIXES):
                return GROWING
            try:
                state = path.stat()
            except OSError:  # gone since it was listed
                return GROWING
            if path.is_dir():
                return None
            content = contents[path] = Content(state.st_mtime_ns, path, state.st_size)
            if path in self._done and self._done[path][0] == content:
                self._done[path] = content, now
                return DONE
            known, since_s = self._seen.get(path, (None, now))
            if known != content:
                since_s = now
                self._seen[path] = content, now
            return None if now - since_s >= self._settle_s else GROWING

        listing = list_folder(self.folder, judge)
        self._seen = {path: one for path, one in self._seen.items() if path in contents}
        # A share may be away for a while.
        self._done = {path: one for path, one in self._done.items() if now - one[1] < FORGET_S or path in contents}
        others = [
            one
            for one in listing.left_out
            if one.reason not in (DONE, GROWING, "is hidden") and one.path not in self._named
        ]
        self._named = (self._named & {one.path for one in listing.left_out}) | {one.path for one in others}
        return sorted(contents[path] for path in listing.files if path in contents), others

    def list_done(self) -> list[Content]:
        """Return what is done and lies in the folder."""
        return sorted(content for content, _ in self._done.values())

    def finish(self, content: Content) -> None:
        """Note that a content is done."""
        self._done[content.path] = content, self._clock()
        self._seen.pop(content.path, None)


def is_there(content: Content) -> bool:
    """Tell whether a file still has a content."""
    try:
        state = content.path.stat()
    except OSError:
        return False
    return (state.st_mtime_ns, state.st_size) == (content.modified_ns, content.size_bytes)

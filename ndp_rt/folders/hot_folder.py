"""Finds what comes into a hot folder, each content once, also over restarts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ndp_rt.errors import InputError
from ndp_rt.folders.rotation import read_parts
from ndp_rt.images.listing import LeftOut, list_folder
from ndp_rt.images.page_names import split_page
from ndp_rt.images.pages import choose_pages

DONE, GROWING = "was inspected", "may still be written"
FORGET_S = 3600.0  # after which a file that is gone may come again as another one
PARTIAL_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".filepart")  # of programs that copy, then rename


@dataclass(frozen=True, order=True)
class Content:
    """A file and which content of it: the oldest comes first."""

    modified_ns: int
    path: Path
    size_bytes: int


@dataclass
class Begun:
    """A content of which some pages, or the file itself, may have rows.

    Attributes:
        rows: what has one, and whether it was inspected.
        chosen: what is to have one.
        left: what of it has none yet.
    """

    content: Content
    rows: dict[Path, bool] = field(default_factory=dict)
    chosen: list[Path] = field(default_factory=list)
    left: set[Path] = field(default_factory=set)


@dataclass
class Done:
    """A content that has all its rows.

    Attributes:
        is_good: whether all of it was inspected.
    """

    content: Content
    is_good: bool


class HotFolder:
    """Finds the images of a folder, and below it, that are complete and not done.

    A file is complete when its size and time have not changed for so long; by looking, since notices of the system do
    not come over a network. Of a file that is done a new content is another image.
    """

    def __init__(
        self,
        folder: Path,
        settle_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        page: int | str | None = None,
    ) -> None:
        """Take the folder.

        Args:
            folder: that is watched.
            settle_s: that a file stays unchanged before it is taken; 0: files are renamed into the folder.
            clock: seconds; for tests.
            page: of files with several, as `choose_pages` takes it.

        Raises:
            InputError: there is no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder to watch, got none.")
        self.folder, self.page = folder, page
        self._settle_s, self._clock = settle_s, clock
        self._seen: dict[Path, tuple[Content, float]] = {}  # and since when
        self._begun: dict[Path, Begun] = {}
        self._done: dict[Path, Done] = {}
        self._there_s: dict[Path, float] = {}  # when a file of these lay there last
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
        for name, status, size_bytes, modified_ns in read_parts(out, ("path", "status", "size_bytes", "modified_ns")):
            path = there.get(name) or there.get(str(split_page(name)[0]))
            if path is None or modified_ns is None:
                continue
            begun, is_good = self._begin(Content(modified_ns, path, size_bytes)), status == "ok"
            begun.rows[Path(name)] = is_good
            # Of a file that was an error a page may be wanted now.
            if name == str(path) and (is_good or self.page is None):
                begun.chosen = [path]
                self._finish(begun)

    def _begin(self, content: Content) -> Begun:
        """Return what is known of a content that is not done."""
        self._there_s[content.path] = self._clock()
        begun = self._begun.get(content.path)
        if begun is None or begun.content != content:
            begun = self._begun[content.path] = Begun(content)
        return begun

    def _finish(self, begun: Begun) -> None:
        is_good = all(begun.rows[path] for path in begun.chosen)
        self._done[begun.content.path] = Done(begun.content, is_good)
        self._begun.pop(begun.content.path, None)
        self._seen.pop(begun.content.path, None)

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
            done = self._done.get(path)
            if done is not None and done.content == content:
                return DONE
            known, since_s = self._seen.get(path, (None, now))
            if known != content:
                since_s = now
                self._seen[path] = content, now
            return None if now - since_s >= self._settle_s else GROWING

        listing = list_folder(self.folder, judge)
        self._seen = {path: one for path, one in self._seen.items() if path in contents}
        # A share may be away for a while.
        self._there_s |= dict.fromkeys(self._there_s.keys() & contents.keys(), now)
        self._there_s = {path: there_s for path, there_s in self._there_s.items() if now - there_s < FORGET_S}
        self._done = {path: one for path, one in self._done.items() if path in self._there_s}
        self._begun = {path: one for path, one in self._begun.items() if path in self._there_s}
        others = [
            one
            for one in listing.left_out
            if one.reason not in (DONE, GROWING, "is hidden") and one.path not in self._named
        ]
        self._named = (self._named & {one.path for one in listing.left_out}) | {one.path for one in others}
        return sorted(contents[path] for path in listing.files if path in contents), others

    def list_good(self) -> list[Content]:
        """Return what was inspected and lies in the folder."""
        return sorted(one.content for one in self._done.values() if one.is_good)

    def is_good(self, content: Content) -> bool:
        """Tell whether all of a content was inspected."""
        done = self._done.get(content.path)
        return done is not None and done.content == content and done.is_good

    def list_left(self, content: Content) -> list[Path]:
        """Return the pages of a content that have no row yet, or the file itself; none: it is done.

        Raises:
            InputError: another file has the name of a page.
        """
        begun = self._begin(content)
        try:
            begun.chosen = choose_pages([content.path], self.page)
        except InputError:
            begun.chosen = [content.path]
            if content.path not in begun.rows:
                begun.left = {content.path}
                raise
        begun.left = {path for path in begun.chosen if path not in begun.rows}
        if not begun.left:
            self._finish(begun)
        return [path for path in begun.chosen if path in begun.left]

    def note(self, content: Content, path: Path, *, is_good: bool) -> None:
        """Note that what `list_left` has named has a row, and whether it was inspected."""
        begun = self._begin(content)
        begun.rows[path] = is_good
        begun.left.discard(path)
        if not begun.left:
            self._finish(begun)


def is_there(content: Content) -> bool:
    """Tell whether a file still has a content."""
    try:
        state = content.path.stat()
    except OSError:
        return False
    return (state.st_mtime_ns, state.st_size) == (content.modified_ns, content.size_bytes)

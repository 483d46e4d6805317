"""A hot folder: images are inspected as they come, each once, and a restart goes on where the last run was."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event

from ndp_rt.errors import InputError, StorageError
from ndp_rt.files import storing
from ndp_rt.folders.inspect_files import inspect_files
from ndp_rt.folders.recording import Recorder
from ndp_rt.folders.rotation import RotatingTable, read_parts
from ndp_rt.images.listing import LeftOut, list_folder
from ndp_rt.inspector import Inspector

DONE, GROWING = "was inspected", "may still be written"
RETRY_S = 5.0  # after results could not be written
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
        self._done: dict[Path, Content] = {}
        self._named: set[Path] = set()  # of what is left out

    def load_done(self, out: Path) -> None:
        """Take what earlier runs have inspected from their results, as far as it still lies in the folder.

        Raises:
            StorageError: a part is damaged.
        """
        there = {str(path): path for path in self._list_files()}
        for name, size_bytes, modified_ns in read_parts(out, ("path", "size_bytes", "modified_ns")):
            path = there.get(name)
            if path is not None and modified_ns is not None:
                self._done[path] = Content(modified_ns, path, size_bytes)

    def _list_files(self) -> list[Path]:
        return [Path(parent) / name for parent, _, names in os.walk(self.folder, followlinks=True) for name in names]

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
            if self._done.get(path) == content:
                return DONE
            known, since_s = self._seen.get(path, (None, now))
            if known != content:
                since_s = now
                self._seen[path] = content, now
            return None if now - since_s >= self._settle_s else GROWING

        listing = list_folder(self.folder, judge)
        self._seen = {path: one for path, one in self._seen.items() if path in contents}
        self._done = {path: one for path, one in self._done.items() if path in contents}
        others = [
            one
            for one in listing.left_out
            if one.reason not in (DONE, GROWING, "is hidden") and one.path not in self._named
        ]
        self._named.update(one.path for one in others)
        return sorted(contents[path] for path in listing.files if path in contents), others

    def list_done(self) -> list[Content]:
        """Return what is done and lies in the folder."""
        return sorted(self._done.values())

    def finish(self, content: Content) -> None:
        """Note that a content is done."""
        self._done[content.path] = content
        self._seen.pop(content.path, None)


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How a hot folder is watched.

    Attributes:
        poll_s: between two looks.
        idle_s: ends the run when nothing has come for so long; None: it goes on.
        is_tiled: images are cut into tiles.
        keeps_pixels: overlays are drawn.
        move_to: where images go when they are done; None: they stay.
        deletes: they are removed instead.
    """

    poll_s: float = 0.2
    idle_s: float | None = None
    is_tiled: bool = False
    keeps_pixels: bool = False
    move_to: Path | None = None
    deletes: bool = False


def watch(
    inspector: Inspector,
    hot: HotFolder,
    recorder: Recorder,
    table: RotatingTable,
    options: WatchOptions,
    stop: Event,
    tell: Callable[[str], None],
) -> None:
    """Inspect what comes until `stop` is set, or nothing comes any more.

    Images wait in the folder while the engine or the disk is slow. What cannot be written, as on a full disk, is tried
    again every RETRY_S.

    Args:
        inspector: for the images.
        hot: the folder.
        recorder: writes rows to `table`.
        table: with FILE_COLUMNS.
        options: how.
        stop: ends the run after the image that is being recorded.
        tell: shows a line.

    Raises:
        InputError: the folder cannot be read.
        NdpRtError: the engine or the device fails.
    """
    last_s, is_told = time.monotonic(), False
    puts_away = options.deletes or options.move_to is not None
    done = hot.list_done() if puts_away else []  # whose rows are written: a run was killed before it put them away
    while not stop.is_set():
        contents, others = hot.poll()
        for other in others:
            tell(f"left out: {other.describe()}")
        try:
            _put_away(done, table, hot.folder, options)
            for content in _inspect(inspector, hot, recorder, options, stop, tell, contents):
                if puts_away:
                    done.append(content)
                    _put_away(done, table, hot.folder, options)
            is_told = False
        except StorageError as error:
            if not is_told:
                tell(f"{error} Trying again every {RETRY_S:.0f} s.")
            is_told = True
            stop.wait(RETRY_S)
            continue
        now_s = time.monotonic()
        last_s = now_s if contents else last_s
        if options.idle_s is not None and now_s - last_s >= options.idle_s:
            return
        if not contents:
            stop.wait(options.poll_s)


def _inspect(
    inspector: Inspector,
    hot: HotFolder,
    recorder: Recorder,
    options: WatchOptions,
    stop: Event,
    tell: Callable[[str], None],
    contents: list[Content],
) -> Iterator[Content]:
    """Record what contents are, and yield each whose row is written."""
    paths = [content.path for content in contents]
    found = inspect_files(inspector, paths, is_tiled=options.is_tiled, keeps_pixels=options.keeps_pixels)
    for content, one in zip(contents, found, strict=True):
        time_text = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        row = {"size_bytes": content.size_bytes, "modified_ns": content.modified_ns, "inspected": time_text}
        recorder.add(one, **row)
        if isinstance(one.outcome, Exception):
            tell(f"error: {one.outcome}")
        elif one.outcome is not None and one.outcome.is_defect:
            tell(f"defect: {one.outcome.score:.3f} {one.path}")
        hot.finish(content)
        yield content
        if stop.is_set():
            return


def _put_away(done: list[Content], table: RotatingTable, folder: Path, options: WatchOptions) -> None:
    """Move or remove images, and take each that is gone from the list; first their rows have to be on the disk.

    Raises:
        StorageError: one cannot be moved or removed, or the rows cannot be written.
    """
    if done:
        table.sync()
    while done:
        _put_one_away(done[0], folder, options)
        done.pop(0)


def _put_one_away(content: Content, folder: Path, options: WatchOptions) -> None:
    """Move or remove an image, unless it has another content by now."""
    with storing(content.path):
        try:
            state = content.path.stat()
            if (state.st_mtime_ns, state.st_size) != (content.modified_ns, content.size_bytes):
                return
            if options.move_to is None:
                content.path.unlink()
                return
            target = _find_free_name(options.move_to / content.path.relative_to(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            content.path.replace(target)
        except FileNotFoundError:  # somebody else has moved it
            return


def _find_free_name(path: Path) -> Path:
    """Return a path that nothing has: cameras begin to count anew."""
    number = 1
    found = path
    while found.exists():
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return found

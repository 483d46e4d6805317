"""A hot folder: images are inspected as they come, each once, and a restart goes on where the last run was."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event

from ndp_rt.errors import InputError, StorageError
from ndp_rt.files import replacing, storing
from ndp_rt.folders.hot_folder import Content, HotFolder, is_there
from ndp_rt.folders.inspect_files import Inspected, inspect_files
from ndp_rt.folders.recording import UNUSUAL, Recorder
from ndp_rt.folders.rotation import RotatingTable
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result

RETRY_S = 5.0  # after results could not be written


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


class Watcher:
    """Inspects what comes into a hot folder."""

    def __init__(
        self,
        inspector: Inspector,
        hot: HotFolder,
        recorder: Recorder,
        table: RotatingTable,
        options: WatchOptions,
        tell: Callable[[str], None],
    ) -> None:
        """Take what it works with.

        Args:
            inspector: for the images.
            hot: the folder.
            recorder: writes rows to `table`.
            table: with FILE_COLUMNS.
            options: how.
            tell: shows a line.
        """
        self._inspector, self._hot, self._recorder, self._table = inspector, hot, recorder, table
        self._options, self._tell = options, tell
        self._told: set[str] = set()  # troubles that last are told once
        self._puts_away = options.deletes or options.move_to is not None
        # Images whose rows are written; at first those of a run that was killed before it put them away.
        self._done = hot.list_good() if self._puts_away else []

    def run(self, stop: Event) -> None:
        """Inspect what comes until `stop` is set, after the image that is being recorded, or nothing comes any more.

        Images wait in the folder while the engine or the disk is slow. What cannot be written, moved or read, as on a
        full disk or a share that is away, is tried again every RETRY_S.

        Raises:
            NdpRtError: the engine or the device fails.
        """
        last_s = time.monotonic()
        while not stop.is_set():
            trouble, contents = None, list[Content]()
            try:
                contents, others = self._hot.poll()
                for other in others:
                    self._tell(f"left out: {other.describe()}")
                for content in self._inspect(contents, stop):
                    self._done += [content] if self._puts_away else []
                    self._put_away()
                self._put_away()
            except (InputError, StorageError) as error:
                trouble = str(error)
            now_s = time.monotonic()
            last_s = now_s if contents else last_s
            if self._options.idle_s is not None and now_s - last_s >= self._options.idle_s:
                return
            if trouble is not None or self._done:
                self._tell_once(trouble)
                stop.wait(RETRY_S)
            elif not contents:
                self._told.clear()
                stop.wait(self._options.poll_s)

    def _tell_once(self, trouble: str | None) -> None:
        """Tell a trouble that was not told yet."""
        if trouble is not None and trouble not in self._told:
            self._told.add(trouble)
            self._tell(f"{trouble} Trying again every {RETRY_S:.0f} s.")

    def _inspect(self, contents: list[Content], stop: Event) -> Iterator[Content]:
        """Record what contents are, and yield each that was inspected and whose rows are written."""
        hot, options = self._hot, self._options
        # Pages are counted file by file: a folder may hold many when a run begins.
        for some in [contents] if hot.page is None else [[one] for one in contents]:
            if stop.is_set():
                return
            try:
                jobs = [(content, path) for content in some for path in hot.list_left(content)]
                paths = [path for _, path in jobs]
                found = inspect_files(
                    self._inspector, paths, is_tiled=options.is_tiled, keeps_pixels=options.keeps_pixels
                )
            except InputError as error:  # another file has the name of a page
                jobs = [(content, content.path) for content in some]
                found = iter([Inspected(path=content.path, outcome=error) for content in some])
            if not jobs:  # their rows are of an earlier run
                yield from filter(hot.is_good, some)
            for (content, path), one in zip(jobs, found, strict=True):
                if stop.is_set():
                    return
                if not is_there(content):  # it is another one by now, which the next look finds
                    continue
                time_text = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
                self._recorder.add(
                    one, size_bytes=content.size_bytes, modified_ns=content.modified_ns, inspected=time_text
                )
                hot.note(content, path, is_good=isinstance(one.outcome, Result))
                self._tell_outcome(one)
                if hot.is_good(content):  # else it stays where it is
                    yield content

    def _tell_outcome(self, one: Inspected) -> None:
        """Tell what somebody may want to look at."""
        if not isinstance(one.outcome, Result):
            self._tell(f"error: {one.outcome}")
            return
        if one.outcome.is_defect:
            self._tell(f"defect: {one.outcome.score:.3f} {one.path}")
        word = one.brightness
        if word in UNUSUAL and self._recorder.tally.unusual[word] == 1:
            self._tell(f"unusual: {one.path} and images like it {UNUSUAL[word]}: their scores may mean nothing.")

    def _put_away(self) -> None:
        """Move or remove images whose rows are on the disk; those that cannot be are tried again.

        Raises:
            StorageError: the rows cannot be written.
        """
        if self._done:
            self._table.sync()
        left = []
        for content in self._done:
            try:
                if is_there(content):
                    put_away(content, self._hot.folder, self._options.move_to)
            except StorageError as error:
                self._tell_once(str(error))
                left.append(content)
        self._done = left


def put_away(content: Content, folder: Path, move_to: Path | None) -> None:
    """Move an image of a folder to another, or remove it.

    Raises:
        StorageError: it cannot be.
    """
    with storing(content.path, "Make it possible, or move it by hand."):
        if move_to is None:
            content.path.unlink(missing_ok=True)
            return
        target = _find_free_name(move_to / content.path.relative_to(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            content.path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with replacing(target) as temporary:  # another file system
                shutil.copy2(content.path, temporary)
                with temporary.open("rb") as stream:
                    os.fsync(stream.fileno())
            content.path.unlink()


def _find_free_name(path: Path) -> Path:
    """Return a path that nothing has: cameras begin to count anew."""
    number = 1
    found = path
    while found.exists():
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return found

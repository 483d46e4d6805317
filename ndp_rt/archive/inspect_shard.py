"""Inspects one shard: paths in, a Parquet file out, whole or not at all. What its file has already is left as it is."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.archive.shards import MOST_ROWS
from ndp_rt.errors import ImageFileError, StorageError
from ndp_rt.files import storing
from ndp_rt.folders.inspect_files import inspect_files
from ndp_rt.folders.recording import Recorder, Tally
from ndp_rt.images.page_names import NAME as PAGE_NAME
from ndp_rt.images.page_names import split_page
from ndp_rt.inspector import Inspector
from ndp_rt.pipeline.sinks import PICTURE_FOLDERS, Row, make_error_row, name_columns, write_parquet

FILE_COLUMNS = ("size_bytes", "modified_ns")  # which content of a file it was
LIKE_A_BYTE = re.compile(r"\\(?=x[0-9a-f]{2})")  # a backslash in a name that would look as a byte does
TEXTS = ("path", "error", "overlay", "map")  # columns that hold names of files


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is inspected and kept of images beside their rows.

    Attributes:
        batch: files that go through the engine together.
        is_tiled: images are cut into tiles.
        with_overlays: a picture for each.
        with_maps: a map for each.
        keep_reconstruction: overlays show the network's reconstruction.
    """

    batch: int = 1
    is_tiled: bool = False
    with_overlays: bool = False
    with_maps: bool = False
    keep_reconstruction: bool = False


class RowList:
    """Rows of a shard in memory."""

    def __init__(self, prefix: str, paths: Sequence[Path]) -> None:
        """Take what the names of their pictures begin with, and the paths, in the order of the rows to come."""
        self.rows: list[Row] = []
        self._prefix, self._paths = prefix, paths

    @property
    def row_name(self) -> str:
        """What pictures of the next row are called, whatever else the shard holds."""
        path = self._paths[len(self.rows)]
        return f"{self._prefix}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"

    def add(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row | {name: show_bytes(row[name]) for name in TEXTS if row.get(name) is not None})


def show_bytes(text: Path | str) -> str:
    """Return a text that Parquet takes: bytes of a path that are no UTF-8 are \\xNN, so that no two are alike."""
    text = str(text)
    if os.sep == "/":
        text = LIKE_A_BYTE.sub(r"\\x5c", text)
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def inspect_shard(
    inspector: Inspector, paths: Sequence[Path], part: Path, drawing: Drawing, *, deadly: str | None = None
) -> Tally:
    """Inspect those images of a shard that its Parquet file lacks, and write the file anew with them.

    An image is lacking that has no row, or a row with an error, or whose file has changed since. Rows of other images
    stay. Memory holds the rows of one shard.

    Args:
        inspector: for them.
        paths: of the shard, or some of it.
        part: the Parquet file, which lies in the folder of the results.
        drawing: what is kept beside rows.
        deadly: why none of these images is inspected: each becomes a row with this error.

    Returns:
        The counts of `paths`, whenever they were inspected.

    Raises:
        StorageError: something cannot be written, the file that is there cannot be read, or images of this list and of
            earlier ones together are too many.
        NdpRtError: the engine or the device fails.
    """
    old = {row["path"]: row for row in read_part(part)}
    contents = {path: find_content(path) for path in paths}
    left = [path for path in paths if not is_done(old.get(show_bytes(path)), contents[path])]
    if left:
        check_room(part, old, left)
        shard, prefix = part.name.split("-")[1], part.stem.rpartition("-")[2]
        for folder in PICTURE_FOLDERS:
            for temporary in (part.parent / folder / shard).glob(".ndp-rt-*.tmp"):
                temporary.unlink(missing_ok=True)
        table = RowList(f"{shard}/{prefix}", left)
        recorder = Recorder(
            part.parent, table, inspector, with_overlays=drawing.with_overlays, with_maps=drawing.with_maps
        )
        if deadly is not None:
            for path in left:
                table.add(make_error_row(str(path), ImageFileError(f"{path}: {deadly}")) | contents[path])
        else:
            found = inspect_files(
                inspector,
                left,
                batch=drawing.batch,
                is_tiled=drawing.is_tiled,
                keeps_pixels=drawing.with_overlays,
                keep_reconstruction=drawing.keep_reconstruction,
            )
            for one in found:
                recorder.add(one, **contents[one.path])
        old |= {row["path"]: row for row in table.rows}
        columns = (*name_columns(inspector.stage_names), *FILE_COLUMNS)
        with storing(part, "Free some space, and run it again: what was written before is kept."):
            write_parquet([old[path] for path in sorted(old)], part, columns)
    tally = Tally()
    for path in paths:
        tally.count_row(old[show_bytes(path)])
    return tally


def check_room(part: Path, old: Collection[str], left: Sequence[Path]) -> None:
    """Check that a shard's rows stay few enough when images are added to those of other lists.

    Raises:
        StorageError: they do not.
    """
    new = {show_bytes(path) for path in left}
    count = len(new.union(old))
    if len(old) < count > MOST_ROWS and not drop_pages(old) <= drop_pages(new):
        raise StorageError(
            f"{part.parent}: expected at most {MOST_ROWS} images in a shard, got {count}: the archive began with a "
            "much shorter list. Choose another folder for what is left."
        )


def drop_pages(names: Collection[str]) -> set[str]:
    """Return the files that names of files and pages mean."""
    return {found[1] if (found := PAGE_NAME.fullmatch(name)) else name for name in names}


def find_content(path: Path) -> dict[str, int | None]:
    """Return which content a file has, as FILE_COLUMNS; None for one that cannot be looked at."""
    try:
        state = os.stat(split_page(path)[0])
    except (OSError, ValueError):  # a zero byte
        return dict.fromkeys(FILE_COLUMNS)
    return {"size_bytes": state.st_size, "modified_ns": state.st_mtime_ns}


def is_done(row: Row | None, content: Mapping[str, int | None]) -> bool:
    """Tell whether a row is of this content and needs no second try."""
    return row is not None and row["status"] == "ok" and all(row[name] == content[name] for name in FILE_COLUMNS)


def read_part(part: Path) -> list[Row]:
    """Return the rows of a Parquet file; none where there is none.

    Raises:
        StorageError: it is damaged, or cannot be read.
    """
    from pyarrow import parquet

    try:
        with part.open("rb") as stream:  # pyarrow refuses paths that are not UTF-8
            rows: list[Row] = parquet.read_table(stream).to_pylist()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{part}: cannot be read ({error}), so what was inspected is not known. Move it away."
        ) from error
    return rows

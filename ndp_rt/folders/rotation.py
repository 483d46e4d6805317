"""A table that never ends, in parts: `results-000001.jsonl`, or `.parquet`, and so on."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from ndp_rt.errors import StorageError
from ndp_rt.files import storing
from ndp_rt.pipeline.sinks import JOURNAL_SUFFIX, STEM, ResultTable, Row, read_rows, write_parquet

PART = re.compile(rf"{STEM}-(\d{{6,}})\.(jsonl|parquet)({re.escape(JOURNAL_SUFFIX)})?")
FILE_COLUMNS = ("size_bytes", "modified_ns", "inspected")  # which content of a file it was, and when


def find_day() -> date:
    """Return the day that it is (UTC)."""
    return datetime.now(timezone.utc).date()


class RotatingTable:
    """Appends rows to the newest part and begins another after so many rows, and each day (UTC).

    All parts but the newest are whole: to that one JSON lines are appended, and a Parquet part is a journal of JSON
    lines until it is ended. A run that was killed leaves its newest part as it was; the next run ends it.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        stages: Sequence[str],
        row_limit: int,
        find_day: Callable[[], date] = find_day,
    ) -> None:
        """End what an earlier run has left, and begin a part.

        Args:
            folder: exists; may hold earlier parts.
            kind: "jsonl" or "parquet".
            stages: of the plan, for their timing columns.
            row_limit: rows of a part.
            find_day: for tests.

        Raises:
            MissingExtraError: Parquet, without PyArrow.
            StorageError: something cannot be written.
        """
        self._folder, self._kind, self._stages, self._row_limit = folder, kind, stages, row_limit
        self._find_day = find_day
        for path in list_parts(folder):
            end_part(path)
        self._number = max((_number(path) for path in list_parts(folder)), default=0)
        self._table = self._begin()

    def _begin(self) -> ResultTable:
        self._number += 1
        self._day = self._find_day()
        stem = f"{STEM}-{self._number:06d}"
        return ResultTable(self._folder, self._kind, self._stages, stem=stem, more=FILE_COLUMNS)

    @property
    def path(self) -> Path:
        """The part that rows go to."""
        return self._table.path

    @property
    def row_name(self) -> str:
        """See `ResultTable.row_name`."""
        return f"{self._number:06d}-{self._table.row_name}"

    def add(self, row: Row) -> None:
        """Append a row; when this returns the system has it.

        Raises:
            StorageError: it cannot be written; no part of it is.
        """
        is_over = self._table.row_count >= self._row_limit or self._find_day() != self._day
        if is_over and self._table.row_count:
            self._table.close()
            self._table = self._begin()
        self._table.add(row)

    def sync(self) -> None:
        """See `ResultTable.sync`."""
        self._table.sync()

    def close(self) -> None:
        """End the newest part; one without rows is removed.

        Raises:
            StorageError: no space for a Parquet file; its journal is kept.
        """
        self._table.close()
        if not self._table.row_count:
            self._table.path.unlink()

    def __enter__(self) -> "RotatingTable":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with contextlib.suppress(StorageError) if isinstance(error, StorageError) else contextlib.nullcontext():
            self.close()


def list_parts(folder: Path) -> list[Path]:
    """Return the parts in a folder, journals of Parquet parts among them, the oldest first."""
    return sorted((path for path in folder.iterdir() if PART.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    found = PART.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def end_part(path: Path) -> None:
    """Cut a row that a killed run has not ended, and make a journal the Parquet file that it was to become.

    Raises:
        StorageError: it cannot be written.
    """
    if path.name.endswith(".parquet"):
        return
    with storing(path), path.open("r+b") as stream:
        content_bytes, whole_bytes = 0, 0
        for line in stream:
            content_bytes += len(line)
            whole_bytes = content_bytes if line.endswith(b"\n") else whole_bytes
        stream.truncate(whole_bytes)
    if not whole_bytes:
        with storing(path):
            path.unlink()
    elif path.name.endswith(JOURNAL_SUFFIX):
        target = path.with_name(path.name.removesuffix(JOURNAL_SUFFIX))
        if not target.exists():  # else it was ended, and killed before the journal was removed
            columns = list(next(read_rows(path)))
            with storing(target, f"Free some space. The rows are in {path}, as JSON lines."):
                write_parquet(read_rows(path), target, columns)
        with storing(path):
            path.unlink()


def read_parts(folder: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of every row of all parts that are ended.

    Raises:
        StorageError: a part is damaged.
    """
    for path in list_parts(folder):
        try:
            if path.suffix == ".jsonl":
                for row in read_rows(path, "surrogateescape"):
                    yield tuple(row.get(name) for name in columns)
            else:
                from pyarrow import parquet

                with parquet.ParquetFile(path) as file:
                    for some in file.iter_batches(columns=list(columns)):
                        yield from zip(*(some.column(name).to_pylist() for name in columns), strict=True)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{path}: cannot be read ({error}), so what was inspected is not known. Move it away."
            ) from error

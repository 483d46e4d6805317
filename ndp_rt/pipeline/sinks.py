"""Writes tables of results, a row an image; whatever ends a run, the finished rows are kept.

CSV and JSON lines are appended and flushed row by row. A Parquet file is readable only once it is closed, so its rows
go to a journal of JSON lines first (`results.parquet.part.jsonl`); closing turns that into the Parquet file in one
step and removes it. A killed run leaves the journal.
"""

import contextlib
import csv
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ndp_rt.decide.regions import Defect
from ndp_rt.errors import InputError, StorageError, needs_extra
from ndp_rt.files import replacing, storing
from ndp_rt.result import Result

Row = dict[str, Any]

FORMATS = ("csv", "jsonl", "parquet")  # the first is the default
STEM = "results"
LEFT_OUT_FILE = "left_out.txt"  # a line for each entry of a folder that is no image
PICTURE_FOLDERS = {"overlays": ".png", "maps": ".npy"}
JOURNAL_SUFFIX = ".part.jsonl"
TIMINGS = ("preprocess", "engine", "postprocess", "total")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
ARCHIVE_FILE = "archive.json"  # beside the Parquet files of an archive's shards
PART = re.compile(r"part-[0-9]{5}-of-[0-9]{5}-[0-9a-f]{16}")  # Spark's begin alike
ARCHIVE_PICTURE = re.compile(r"[0-9]{5}/[0-9a-f]{16}-[0-9a-f]{12}-.*", re.DOTALL)  # SHARD/KEY-PATH-NAME
WHOLE_NUMBERS = ("size_bytes", "modified_ns")  # of the columns that a hot folder and an archive add
PARQUET_ROWS = 4096  # rows held in memory while a journal becomes a Parquet file


def name_columns(stages: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns of a table; `stages` are the timings that the plan adds, if any."""
    timings = [f"{name}_ms" for name in (*TIMINGS, *stages)]
    first = ("path", "status", "decision", "score", "threshold", "brightness", "height_px", "width_px")
    return (*first, *timings, "engine_hash", "defect_count", "defects", "overlay", "map", "error")


def make_row(
    path: str,
    result: Result,
    engine_hash: str,
    *,
    overlay: str | None,
    map_file: str | None,
    brightness: str | None = None,
) -> Row:
    """Return the row of an image that was inspected; `brightness` is what `judge_brightness` says."""
    height, width = result.anomaly_map.shape
    return {
        "path": path,
        "status": "ok",
        "decision": "defect" if result.is_defect else "good",
        "score": result.score,
        "threshold": result.threshold,
        "brightness": brightness,
        "height_px": height,
        "width_px": width,
        **{f"{name}_ms": round(value, 4) for name, value in result.timings_ms.items()},
        "engine_hash": engine_hash,
        "defect_count": len(result.defects),
        "defects": [describe_defect(defect) for defect in result.defects],
        "overlay": overlay,
        "map": map_file,
        "error": None,
    }


def describe_defect(defect: Defect) -> dict[str, Any]:
    """Return a defect as values of JSON; the contour where there is one."""
    values = asdict(defect)
    contour = values.pop("contour")
    return values if contour is None else values | {"contour": contour.tolist()}


def make_error_row(path: str, error: Exception) -> Row:
    """Return the row of an image that could not be read; its other columns are empty."""
    return {"path": path, "status": "error", "error": str(error)}


def check_format(kind: str) -> None:
    """Make sure that tables of this format can be written here.

    Raises:
        MissingExtraError: Parquet, without PyArrow.
    """
    if kind == "parquet":
        with needs_extra("writing Parquet", "parquet"):
            # What `write_parquet` needs after the last image, so that a package that is broken shows before the first.
            import pyarrow  # noqa: F401
            from pyarrow import parquet  # noqa: F401


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that results may be written to `folder`, without changing anything.

    Raises:
        InputError: it has the name of a results file.
        StorageError: it is a file, or holds results and `overwrite` is False.
    """
    if folder.suffix.lstrip(".") in FORMATS and not folder.is_dir():
        raise InputError(
            f"-o: expected a folder, which results{folder.suffix} goes into, got {folder}. Use -o "
            f"{folder.with_suffix('')} --format {folder.suffix[1:]}."
        )
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder}: expected a folder, got a file. Choose another name.")
    old = list_old_files(folder)
    if old and not overwrite:
        raise StorageError(
            f"{folder}: expected no results of an earlier run, got {old[0].name}. Choose another folder, or pass "
            "--overwrite."
        )


def clear_folder(folder: Path) -> None:
    """Make the folder and remove the results, overlays and maps of an earlier run from it.

    Raises:
        StorageError: no permission.
    """
    with storing(folder):
        for path in list_old_files(folder):
            path.unlink()
        folder.mkdir(parents=True, exist_ok=True)


def list_old_files(folder: Path) -> list[Path]:
    """Return what earlier runs left in `folder`; `archive.json` comes last, so that what a failure leaves is known.

    Without `archive.json` files named as those of an archive are somebody else's.
    """
    old = [folder / f"{STEM}.{kind}" for kind in FORMATS]
    old += [folder / f"{STEM}.parquet{JOURNAL_SUFFIX}", folder / LEFT_OUT_FILE]
    for name, suffix in PICTURE_FOLDERS.items():
        old += sorted((folder / name).glob(f"*{suffix}"))
    archive = folder / ARCHIVE_FILE
    if archive.is_file():
        for name, suffix in PICTURE_FOLDERS.items():
            pictures = sorted((folder / name).glob(f"*/*{suffix}"))
            old += [path for path in pictures if ARCHIVE_PICTURE.fullmatch(f"{path.parent.name}/{path.stem}")]
        old += [*list_parts(folder), archive]
    return [path for path in old if path.is_file()]


def list_parts(folder: Path) -> list[Path]:
    """Return the Parquet files of an archive's shards, of every engine."""
    return sorted(path for path in folder.glob("part-*.parquet") if PART.fullmatch(path.stem))


class ResultTable:
    """Writes rows to `folder/STEM.<ext>`; use as a context manager. One thread at a time."""

    def __init__(
        self, folder: Path, kind: str, stages: Sequence[str] = (), *, stem: str = STEM, more: Sequence[str] = ()
    ) -> None:
        """Open the table.

        Args:
            folder: exists.
            kind: one of FORMATS.
            stages: of the plan, for their timing columns.
            stem: of the file's name.
            more: columns behind the others.

        Raises:
            MissingExtraError: Parquet, without PyArrow.
            StorageError: the file cannot be made.
        """
        check_format(kind)
        self.path = folder / f"{stem}.{kind}"
        self.columns = (*name_columns(stages), *more)
        self.row_count = 0
        self._kind = kind
        self._written = self.path.with_name(f"{self.path.name}{JOURNAL_SUFFIX}") if kind == "parquet" else self.path
        with storing(self._written):
            self._stream = self._written.open("wb", buffering=0)
        self._size_bytes = 0
        if kind == "csv":
            self._append(_to_csv(self.columns))

    @property
    def row_name(self) -> str:
        """What pictures of the next row are called, unlike those of any other."""
        return f"{self.row_count:05d}"

    def sync(self) -> None:
        """Return when the rows are on the disk.

        Raises:
            StorageError: they cannot be written.
        """
        with storing(self._written):
            if not self._stream.closed:
                os.fsync(self._stream.fileno())

    def add(self, row: Row) -> None:
        """Append a row; when this returns the system has it.

        Raises:
            StorageError: it cannot be written; the rows before it are kept, and no part of this one.
        """
        values = [row.get(name) for name in self.columns]
        if self._kind == "csv":
            self._append(_to_csv([_to_cell(name, value) for name, value in zip(self.columns, values, strict=True)]))
        else:
            self._append(json.dumps(dict(zip(self.columns, values, strict=True)), ensure_ascii=False) + "\n")
        self.row_count += 1

    def _append(self, line: str) -> None:
        """Write one line whole, or none of it."""
        rest = line.encode("utf-8", "surrogateescape")  # paths may hold bytes that are no UTF-8
        size_bytes = len(rest)
        with storing(self._written):
            try:
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._stream.truncate(self._size_bytes)
                    self._stream.seek(self._size_bytes)
                raise
        self._size_bytes += size_bytes

    def close(self) -> None:
        """Finish the file.

        Raises:
            StorageError: no space for the Parquet file; its journal is kept and named in the error.
        """
        if self._stream.closed:
            return
        with storing(self._written):
            self._stream.close()
        if self._kind == "parquet":
            with storing(self.path, f"Free some space. The rows are in {self._written}, as JSON lines."):
                write_parquet(read_rows(self._written), self.path, self.columns)
            self._written.unlink()

    def __enter__(self) -> "ResultTable":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except StorageError:
            if not isinstance(error, StorageError):  # the first failure to write is the one that is reported
                raise


def _to_cell(column: str, value: object) -> object:
    """Return a value as a cell of CSV: lists as JSON, None as nothing, and no text that a spreadsheet computes."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"./{value}" if column == "path" else f"'{value}"  # the former is the same path
    return value


def _to_csv(values: Sequence[object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def read_rows(path: Path, errors: str = "replace") -> Iterator[Row]:
    """Yield the rows of a JSON lines file (a journal too); a last line that was cut short is left out.

    Args:
        path: of the file.
        errors: what becomes of bytes of paths that are no UTF-8, as `open` has it.
    """
    with path.open(encoding="utf-8", errors=errors) as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


def write_parquet(rows: Iterable[Row], target: Path, columns: Sequence[str]) -> None:
    """Write a Parquet file of rows, a few thousand at a time, whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _make_schema(pa, columns)
    # A stream, not the path: pyarrow refuses paths that are not UTF-8.
    with (
        replacing(target) as temporary,
        temporary.open("wb") as stream,
    ):
        with parquet.ParquetWriter(stream, schema) as writer:
            source = iter(rows)
            while some := list(itertools.islice(source, PARQUET_ROWS)):
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
        stream.flush()
        os.fsync(stream.fileno())  # before the journal goes


def _make_schema(pa: Any, columns: Sequence[str]) -> Any:
    """Return the Parquet schema: numbers as numbers, defects as a list of structs."""
    kinds_of_fields = {int: pa.int64(), "contour": pa.list_(pa.list_(pa.int32()))}
    defect = pa.struct(
        [
            (field.name, kinds_of_fields.get(field.name, kinds_of_fields.get(field.type, pa.float64())))
            for field in fields(Defect)
        ]
    )
    counts = {name: pa.int64() for name in ("height_px", "width_px", "defect_count")}
    numbers = {name: pa.float64() for name in ("score", "threshold")}
    timings = {name: pa.float64() for name in columns if name.endswith("_ms")}
    kinds = {**counts, **dict.fromkeys(WHOLE_NUMBERS, pa.int64()), **numbers, **timings, "defects": pa.list_(defect)}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in columns])

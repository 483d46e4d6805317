"""Results as rows of a table, with overlays and maps beside it, and their counts."""

import io
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ndp_rt.files import write_atomically
from ndp_rt.folders.inspect_files import Inspected, lacking_memory
from ndp_rt.images.opencv import lacks_memory
from ndp_rt.images.page_names import split_page
from ndp_rt.inspector import Inspector
from ndp_rt.pipeline.overlays import draw_overlay, encode_png
from ndp_rt.pipeline.sinks import Row, make_error_row, make_row
from ndp_rt.result import Result

UNUSUAL: dict[str, str] = {
    "darker": "are darker than all that training saw",
    "brighter": "are brighter than all that training saw",
    "faint": "of 16 bits use less than an eighth of the range up to white",
}
KEPT_ERRORS = 5
LONGEST_STEM_BYTES = 200


@dataclass(kw_only=True)
class Tally:
    """Counts of a run's good, defective and unreadable images."""

    good_count: int = 0
    defect_count: int = 0
    left_out_count: int = 0
    error_count: int = 0
    errors: list[str] = field(default_factory=list)  # the first KEPT_ERRORS
    unusual: Counter[str] = field(default_factory=Counter)  # of UNUSUAL
    unusual_paths: dict[str, Path] = field(default_factory=dict)  # the first of each

    def describe(self) -> str:
        """Return the counts as a sentence."""
        count = self.good_count + self.defect_count
        images = "image" if count == 1 else "images"
        text = f"{count} {images} inspected: {self.good_count} good, {self.defect_count} with defects"
        text = f"{text}; {self.error_count} could not be read" if self.error_count else text
        entries = "entry" if self.left_out_count == 1 else "entries"
        return f"{text}; {self.left_out_count} {entries} left out" if self.left_out_count else text

    def count_row(self, row: Row) -> None:
        """Count a row as `Recorder` counts what it is made from."""
        if row["status"] == "error":
            self.error_count += 1
            if len(self.errors) < KEPT_ERRORS:
                self.errors.append(row["error"])
            return
        if row["brightness"] in UNUSUAL:
            self.unusual[row["brightness"]] += 1
            self.unusual_paths.setdefault(row["brightness"], Path(row["path"]))
        if row["decision"] == "defect":
            self.defect_count += 1
        else:
            self.good_count += 1

    def add(self, other: "Tally") -> None:
        """Add the counts of another part of the run."""
        self.good_count += other.good_count
        self.defect_count += other.defect_count
        self.left_out_count += other.left_out_count
        self.error_count += other.error_count
        self.errors += other.errors[: KEPT_ERRORS - len(self.errors)]
        self.unusual += other.unusual
        self.unusual_paths = other.unusual_paths | self.unusual_paths


class Table(Protocol):
    """What rows are written to."""

    @property
    def row_name(self) -> str:
        """What pictures of the next row are called, unlike those of any other."""

    def add(self, row: Row) -> None:
        """Append a row."""


class Recorder:
    """Turns results into rows and pictures, and counts them in `tally`."""

    def __init__(
        self,
        out: Path,
        table: Table,
        inspector: Inspector,
        *,
        with_overlays: bool,
        with_maps: bool,
    ) -> None:
        """Take the table, and the folder that pictures go into."""
        self.table = table
        self._out = out
        self._engine_hash = inspector.engine_hash
        self._white_level = inspector.bundle.manifest.input.white_level_16bit
        self._with_overlays, self._with_maps = with_overlays, with_maps
        self.tally = Tally()

    def add(self, one: Inspected, **more: Any) -> None:
        """Write a file's overlay and map, then the row that names them, or the row of its error; memory may run out.

        Args:
            one: with its pixels where overlays are wanted.
            more: further columns of the table.

        Raises:
            StorageError: something cannot be written; the row is then missing.
        """
        try:
            self._add(one, more)
        except Exception as error:
            if not lacks_memory(error):
                raise
            self._add(replace(one, outcome=lacking_memory(one.path)), more)

    def _add(self, one: Inspected, more: dict[str, Any]) -> None:
        if not isinstance(one.outcome, Result):
            error = one.outcome
            assert error is not None  # `inspect_files` gives one or the other
            self._put(make_error_row(str(one.path), error) | more)
            return
        result = one.outcome
        # The row's number keeps pictures of files with the same name in different folders apart.
        page = split_page(one.path)[1]
        name = f"{self.table.row_name}-{_shorten(one.path.stem)}" + ("" if page is None else f"-page{page}")
        overlay = map_file = None
        if self._with_overlays and one.pixels is not None:
            picture = draw_overlay(one.pixels, result, one.path.name, white_level_16bit=self._white_level)
            overlay = self._write(f"overlays/{name}.png", encode_png(picture))
        if self._with_maps:
            map_file = self._write(f"maps/{name}.npy", _encode_map(result))
        row = make_row(
            str(one.path), result, self._engine_hash, overlay=overlay, map_file=map_file, brightness=one.brightness
        )
        self._put(row | more)

    def _put(self, row: Row) -> None:
        self.table.add(row)
        self.tally.count_row(row)

    def _write(self, name: str, content: bytes) -> str:
        write_atomically(self._out / name, content)
        return name


def _shorten(stem: str) -> str:
    """Return the start of a name, so that with number and suffix it fits into a file name's 255 bytes."""
    content = os.fsencode(stem)
    return stem if len(content) <= LONGEST_STEM_BYTES else content[:LONGEST_STEM_BYTES].decode("utf-8", "ignore")


def _encode_map(result: Result) -> bytes:
    content = io.BytesIO()
    np.save(content, result.anomaly_map)
    return content.getvalue()

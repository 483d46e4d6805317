"""Tables of results: rows stay whole, and none is lost."""

import csv
import errno
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.decide.regions import list_defects
from ndp_rt.errors import ImageFileError, StorageError
from ndp_rt.pipeline.sinks import ResultTable, make_error_row, make_row, name_columns, read_rows
from ndp_rt.result import Result


def make_result() -> Result:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[2:4, 2:5] = 0.75
    return Result(
        score=0.75,
        threshold=0.5,
        is_defect=True,
        anomaly_map=anomaly_map,
        defects=list_defects(anomaly_map, 0.5, 8, 8, mm_per_pixel=0.1),
        timings_ms={"preprocess": 0.1, "engine": 2.0, "postprocess": 0.2, "total": 2.3},
    )


def fill(table: ResultTable, count: int) -> None:
    for index in range(count):
        table.add(make_row(f'image {index}, "quoted".png', make_result(), "hash", overlay=None, map_file=None))


def test_no_cell_of_csv_begins_as_a_formula(tmp_path: Path) -> None:
    with ResultTable(tmp_path, "csv") as table:
        for name in ("=1+1.png", "+x.png", "-x.png", "@x.png", "\tx.png", "plain.png", "/=x.png"):
            table.add(make_error_row(name, ValueError(f"{name}: cannot be read")))
    with table.path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    paths = ["./=1+1.png", "./+x.png", "./-x.png", "./@x.png", "./\tx.png", "plain.png", "/=x.png"]
    assert [row["path"] for row in rows] == paths
    assert rows[0]["error"] == "'=1+1.png: cannot be read" and rows[5]["error"] == "plain.png: cannot be read"


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_an_exception_keeps_the_rows_that_were_added(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ZeroDivisionError), ResultTable(tmp_path, kind) as table:
        fill(table, 3)
        table.add(make_error_row("bad.png", ImageFileError("bad.png: is empty.")))
        raise ZeroDivisionError
    assert table.row_count == 4
    if kind == "parquet":
        from pyarrow import parquet

        rows = parquet.read_table(table.path).to_pylist()
        assert rows[0]["defects"] == [asdict(defect) for defect in make_result().defects]
        assert rows[3]["defects"] is None and rows[3]["error"] == "bad.png: is empty."
    else:
        assert table.path.read_text().count("\n") == 4 + (kind == "csv")
    assert [path.name for path in tmp_path.iterdir()] == [f"results.{kind}"]


def test_rows_are_on_the_disk_before_the_table_is_closed(tmp_path: Path) -> None:
    table = ResultTable(tmp_path, "parquet")
    fill(table, 2)
    journal = tmp_path / "results.parquet.part.jsonl"
    assert len(list(read_rows(journal))) == 2
    table.close()
    assert not journal.exists()


class FullDisk:
    """A stream whose disk is full after `room_bytes`."""

    def __init__(self, stream: Any, room_bytes: int) -> None:
        self._stream = stream
        self.room_bytes = room_bytes

    def write(self, data: bytes) -> int:
        if self.room_bytes == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._stream.write(data[: self.room_bytes])
        self.room_bytes -= written
        return int(written)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_row_is_written_whole_or_not_at_all(tmp_path: Path, kind: str) -> None:
    table = ResultTable(tmp_path, kind)
    fill(table, 2)
    table._stream = FullDisk(table._stream, 40)
    with pytest.raises(StorageError, match="No space left"):
        fill(table, 1)
    written = tmp_path / ("results.parquet.part.jsonl" if kind == "parquet" else f"results.{kind}")
    assert written.read_bytes().count(b"\n") == 2 + (kind == "csv") and written.read_bytes().endswith(b"\n")
    table._stream.room_bytes = 10**6  # space again: later rows follow the whole ones
    fill(table, 1)
    assert written.read_bytes().count(b"\n") == 3 + (kind == "csv")


def test_the_journal_stays_when_the_parquet_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ndp_rt.pipeline.sinks.write_parquet", fail)
    table = ResultTable(tmp_path, "parquet")
    fill(table, 2)
    with pytest.raises(StorageError, match=r"rows are in .*part\.jsonl"):
        table.close()
    assert len(list(read_rows(tmp_path / "results.parquet.part.jsonl"))) == 2


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"path": "a"}\n{"path": "b')
    assert list(read_rows(tmp_path / "x.jsonl")) == [{"path": "a"}]


def test_names_that_are_no_utf8_do_not_stop_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    for kind in ("parquet", "csv", "jsonl"):
        with ResultTable(folder, kind) as table:
            table.add(make_row("caf\udce9.png", make_result(), "hash", overlay=None, map_file=None))
        assert table.path.stat().st_size > 0


def test_stages_of_a_plan_have_columns() -> None:
    assert "rbfrm_ms" in name_columns(("rbfrm",)) and "rbfrm_ms" not in name_columns()

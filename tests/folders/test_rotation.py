"""Parts of a table that never ends: another begins after so many rows, and each day."""

from datetime import date
from pathlib import Path

import pytest
from pyarrow import parquet

from ndp_rt.errors import InputError
from ndp_rt.folders.rotation import RotatingTable, list_parts, read_parts
from ndp_rt.pipeline.sinks import make_error_row, read_rows


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_part_ends_after_its_rows_or_its_day(tmp_path: Path, kind: str) -> None:
    days = [date(2026, 12, 30)] * 3 + [date(2026, 12, 31)] + [date(2027, 1, 1)] * 2
    clock = iter([days[0]])
    table = RotatingTable(tmp_path, kind, [], 2, lambda: next(clock))
    for number, day in enumerate(days):
        clock = iter([day, day])
        table.add(make_error_row(f"{number}.png", InputError("none")))
    table.close()
    parts = list_parts(tmp_path)
    assert [path.name for path in parts] == [f"results-00000{number}.{kind}" for number in (1, 2, 3, 4)]
    counts = [len(list(read_rows(path))) if kind == "jsonl" else parquet.read_metadata(path).num_rows for path in parts]
    assert counts == [2, 1, 1, 2]
    assert [name for (name,) in read_parts(tmp_path, ["path"])] == [f"{number}.png" for number in range(6)]

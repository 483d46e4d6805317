"""Files of records: what is read, and what each damage is called."""

import json
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bench.read_records import find_number, list_numbers, read_records
from ndp_rt.errors import InputError
from tests.bench.bench_records import make_latency_record, make_record, make_records_of_all_modes, write_records


def test_every_line_is_a_record_and_blank_lines_are_none(tmp_path: Path, rng: np.random.Generator) -> None:
    records = make_records_of_all_modes(rng)
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(json.dumps(record) for record in records) + "\n\n")
    found = read_records(path)
    assert [one.record for one in found] == records
    assert [one.line for one in found] == [1, 3, 5, 7, 9, 11, 13]


def test_a_file_may_hold_one_object_over_many_lines(tmp_path: Path, rng: np.random.Generator) -> None:
    record = make_latency_record(rng, 2)
    (tmp_path / "a.json").write_text("\n" + json.dumps(record, indent=2))
    assert [(one.line, one.record) for one in read_records(tmp_path / "a.json")] == [(2, record)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "ndp-rt speed"}, "line 2: expected a record of the format 'ndp-rt bench', got 'ndp-rt speed'"),
        ({"format_version": 2}, "line 2: format_version is 2; this ndp-rt reads up to 1. Update ndp-rt"),
        ({"format_version": "1"}, "line 2: expected a format_version from 1 to 1, got '1'"),
        ({"mode": "fast"}, "line 2: expected one of the modes latency, cold, idle, sweep, got 'fast'"),
        ({"rows": {}}, "line 2: 'rows' is no list of objects with a name each"),
        ({"rows": [{"latency": {"p50_ms": 1.0}}]}, "line 2: 'rows' is no list of objects with a name each"),
        ({"rows": [{"name": "pytorch"}]}, "line 2: row 'pytorch' has no latency"),
        ({"rows": [{"name": "pytorch", "latency": {"p50_ms": 0.0}}]}, "line 2: row 'pytorch' has no latency"),
    ],
)
def test_a_record_that_is_not_taken_is_named_by_its_line(
    changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = write_records(tmp_path / "a.jsonl", make_record(), make_record() | changes)
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"format": "ndp-rt be', "line 2 is no JSON"),
        ("[1, 2]", "line 2 is a JSON list; a record is an object"),
        ('{"elapsed_s": NaN}', "line 2 is no JSON (NaN is no JSON number)"),
        ("[" * 100_000, "line 2 is no JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(make_record()) + "\n" + line + "\n")
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert words in str(caught.value)


def test_files_that_are_none_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "binary.jsonl").write_bytes(b"\x89PNG\xff")
    for name, words in (
        ("missing.jsonl", "cannot be read"),
        (".", "cannot be read"),
        ("empty.jsonl", "holds no record"),
        ("binary.jsonl", "is no UTF-8 text"),
    ):
        with pytest.raises(InputError, match=words):
            read_records(tmp_path / name)


def test_what_is_no_finite_number_is_none() -> None:
    source = {"a": {"b": 2, "c": "2", "d": True, "e": float("inf")}, "f": [1, "2", 3.5, None]}
    assert find_number(source, "a", "b") == 2.0
    assert [find_number(source, "a", key) for key in "cdez"] == [None] * 4
    assert find_number(source, "f", "x") is None
    assert list_numbers(source, "f") == [1.0, 3.5]
    assert list_numbers(source, "a") == []

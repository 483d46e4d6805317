"""Records: their head, and that writing one never leaves half a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.errors import StorageError
from ndp_rt.evaluate.machine import describe_machine, list_versions
from ndp_rt.evaluate.record import append_record, start_record, write_record


def test_a_record_says_when_where_and_how_it_was_made() -> None:
    record = start_record("ndp-rt evaluation", 1, "ndp-rt evaluate a b")
    assert record["format"] == "ndp-rt evaluation"
    assert record["command"] == "ndp-rt evaluate a b"
    assert record["created"].endswith("+00:00")
    assert record["machine"]["core_count"] >= 1
    assert record["versions"]["numpy"]


def test_a_missing_package_has_no_version() -> None:
    assert list_versions(("no-such-package",))["no-such-package"] is None


def test_the_machine_has_a_processor_and_memory() -> None:
    machine = describe_machine()
    assert machine["cpu"]
    assert machine["memory_bytes"] is None or int(str(machine["memory_bytes"])) > 2**20


def test_a_failed_write_leaves_the_earlier_record(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    write_record({"figure": 1}, path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record({"figure": float("nan")}, path)
    assert json.loads(path.read_text()) == {"figure": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["record.json"]


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_record({}, tmp_path / "taken" / "record.json")
    with pytest.raises(StorageError, match="cannot be written"):
        append_record({}, tmp_path / "taken" / "record.jsonl")


def test_appending_keeps_the_earlier_lines(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    for figure in (1, 2):
        append_record({"figure": figure}, path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"figure": 1}, {"figure": 2}]


def test_a_line_that_was_cut_does_not_swallow_the_next_record(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text('{"figure": 1}\n{"fig')
    append_record({"figure": 2}, path)
    assert path.read_text().splitlines() == ['{"figure": 1}', '{"fig', '{"figure": 2}']


def test_a_disk_that_fills_leaves_no_half_record(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs limits on a file's size, which Windows has not")
    path = tmp_path / "record.jsonl"
    append_record({"figure": 1}, path)
    code = f"""
import resource, signal
from ndp_rt.evaluate.record import append_record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
append_record({{"figures": [2] * 1000}}, __import__("pathlib").Path({str(path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "cannot be written" in done.stderr
    assert path.read_text() == '{"figure": 1}\n'


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_record_can_go_into_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        append_record({"figure": 1}, pipe)
        assert reader.stdout is not None and json.loads(reader.stdout.read()) == {"figure": 1}

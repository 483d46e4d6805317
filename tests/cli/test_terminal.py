"""Names of files and bundles reach the terminal as names: they neither move its cursor nor pass for a message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt import bench
from ndp_rt.bench.read_records import read_records
from ndp_rt.bench.table import print_record
from ndp_rt.cli import main
from ndp_rt.cli.terminal import make_console, show

RECORDS = Path(bench.__file__).parent / "results" / "bench"
NASTY = "x\x1b[2J\rall good\nndp-rt: done\x9b31m\u202egnp.\udcff"


def test_nothing_in_a_name_is_a_command_to_the_terminal() -> None:
    shown = show(f"{NASTY}: cannot be read")
    assert shown == "x\\x1b[2J\\rall good\n  ndp-rt: done\\x9b31m\\u202egnp.\\udcff: cannot be read"
    assert shown.encode()


def test_plain_text_of_any_language_stays_as_it_is() -> None:
    assert show("Fläche\t表面 é.png") == "Fläche\t表面 é.png"


def test_an_error_that_names_a_nasty_file_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["set-threshold", f"/{NASTY}.ndp", "0.5"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("ndp-rt: ") for line in lines] == [True, False]
    assert not any(ord(character) < 32 for line in lines for character in line)


@pytest.mark.parametrize("name", ["edge.jsonl", "scenarios.jsonl"])
def test_names_in_a_record_of_bench_are_names_in_its_tables_too(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    text = (RECORDS / name).read_text(encoding="utf-8").splitlines()[-1]
    record = json.loads(text)
    record["bundle"]["name"] = record["rows"][0]["name"] = record["rows"][-1]["name"] = NASTY
    record["left_out"][NASTY] = NASTY
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    for stored in read_records(path):
        print_record(make_console(), stored.record)
    assert main(["bench", "compare", str(path), str(path)]) == 0
    out = capsys.readouterr().out
    assert r"x\x1b[2J" in out and not any(character in out for character in "\x1b\r\x9b\u202e\udcff")
    assert not any(line.startswith("ndp-rt: done") for line in out.splitlines())


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell, whose redirections this uses")
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_closed_streams_neither_raise_nor_let_files_take_their_numbers(tmp_path: Path, closed: str) -> None:
    code = (
        "import os, sys; from ndp_rt.cli import main; code = main(['set-threshold', 'no.ndp', '1']);"
        "number = os.open('file', os.O_CREAT | os.O_RDWR); os.write(2, b'a library complains');"
        "sys.exit(code if number > 2 else 99)"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 1, done
    assert done.stdout == b"" and (tmp_path / "file").read_bytes() == b""


def test_standard_error_closed_on_the_way_is_no_traceback(tmp_path: Path) -> None:
    code = "import os, sys; os.close(2); from ndp_rt.cli import main; sys.exit(main(['set-threshold', 'no.ndp', '1']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1 and done.stdout == done.stderr == b""


@pytest.mark.parametrize("command", ["evaluate", "set-threshold", "inspect"])
def test_links_that_run_in_circles_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (tmp_path / "loop.ndp").symlink_to("loop.ndp")
    rest = {"evaluate": [str(tmp_path)], "set-threshold": ["0.5"], "inspect": [str(tmp_path), "-o", "out"]}
    assert main([command, str(tmp_path / "loop.ndp"), *rest[command]]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1

"""`ndp-rt bench report` and `ndp-rt bench compare` as commands."""

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ndp_rt.cli import bench_compare, bench_report
from ndp_rt.errors import InputError, MissingExtraError, StorageError
from tests.bench.bench_records import make_latency_record, make_record, write_records


def run(module: ModuleType, *words: object) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args([str(word) for word in words]))
    return code


@pytest.fixture
def path(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A file with two records, one row and two rows."""
    return write_records(tmp_path / "speed.jsonl", make_latency_record(rng, 1), make_latency_record(rng, 2))


@pytest.mark.nightly
def test_the_page_is_written_beside_the_record(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bench_report, path) == 0
    page = path.with_suffix(".html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == f"Wrote {page}: 2 records\n"


@pytest.mark.nightly
def test_several_files_make_one_page(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert run(bench_report, path, path, "-o", out) == 0
    assert out.read_text(encoding="utf-8").count("<section ") == 5  # all together, then each


def test_a_record_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(InputError, match="records are never overwritten"):
        run(bench_report, path, "-o", path)
    assert path.read_bytes() == before


@pytest.mark.nightly
def test_a_page_that_cannot_be_written_is_a_storage_error(path: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        run(bench_report, path, "-o", tmp_path / "taken" / "page.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        run(bench_report, path, "-o", tmp_path / "folder")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs an ordinary user on POSIX: root may write everywhere"
)
def test_a_read_only_folder_is_a_storage_error(path: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        run(bench_report, path, "-o", tmp_path / "locked" / "page.html")


def test_without_matplotlib_the_command_to_install_it_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ndp-rt\[bench\]'"):
        run(bench_report, path)
    assert not path.with_suffix(".html").exists()


def test_a_bad_record_leaves_no_page(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", make_record(format_version=2))
    with pytest.raises(InputError, match="format_version is 2"):
        run(bench_report, path)
    assert not path.with_suffix(".html").exists()


def test_the_same_record_loses_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bench_compare, path, path) == 0
    out = capsys.readouterr().out
    assert "B lost nothing" in out and "1.000" in out


def test_a_slower_row_is_named_and_the_exit_code_is_1(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_latency_record(rng, 2)
    b = make_latency_record(rng, 3)
    b["rows"][0]["round_p50_ms"] = [time * 1.3 for time in a["rows"][0]["round_p50_ms"]]
    b["settings"] = b["settings"] | {"threads": 1}
    words = [write_records(tmp_path / name, record) for name, record in (("a.jsonl", a), ("b.jsonl", b))]
    assert run(bench_compare, *words) == 1
    out = capsys.readouterr().out
    assert "Settings differ: threads: 2 -> 1." in out
    assert "Only in B: ndp-rt openvino fp32, batch 1, single-stream" in out
    assert "B lost in 1 point:\n  ndp-rt openvino bf16, batch 1, single-stream: p50 is 1.300 times A's" in out
    assert run(bench_compare, *words, "--tolerance", "0.4") == 0


def test_a_row_in_doubt_is_called_uncertain(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_latency_record(rng, 1)
    a["rows"][0]["round_p50_ms"] = [100.0, 101.0, 99.0, 100.0]
    b = make_latency_record(rng, 1)
    b["rows"][0]["round_p50_ms"] = [90.0, 95.0, 109.0, 109.0, 130.0, 95.0, 112.0]
    words = [write_records(tmp_path / name, record) for name, record in (("a.jsonl", a), ("b.jsonl", b))]
    assert run(bench_compare, *words) == 0
    assert "uncertain: slower at the median, but its interval begins at 0.9" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["-0.1", "much", "nan", "inf"])
def test_a_tolerance_that_is_none_is_wrong_usage(text: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(bench_compare, path, path, f"--tolerance={text}")
    assert caught.value.code == 2
    assert "0.05" in capsys.readouterr().err

"""`ndp-rt bench capi` as a user calls it, with the tiny bundle."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bench.capi import crowd, run
from ndp_rt.bench.capi.figures import Figure, show
from ndp_rt.bench.capi.host import HostProgram, learn, teach
from ndp_rt.bench.capi.run import PARTS
from ndp_rt.cli import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, main

pytestmark = pytest.mark.nightly

SHORT = ("--seconds", "0.15", "--calls", "400")


@pytest.fixture(autouse=True)
def compiled(host: HostProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the host that is compiled already."""
    monkeypatch.setattr(run, "build_host", lambda folder: host)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_part_is_measured_and_its_record_appended(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "capi.jsonl"
    arguments = ["bench", "capi", str(tiny_bundle), *SHORT, "--soak", "0.4", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["ndp-rt", *arguments])
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    [record] = read_lines(out)
    assert (record["format"], record["format_version"]) == ("ndp-rt bench capi", 1)
    assert record["command"] == f"ndp-rt {' '.join(arguments)}"
    assert record["is_complete"] and record["failures"] == {} and record["elapsed_s"] > 0
    assert record["machine"]["cpu"] and record["versions"]["openvino"] and record["bundle"]["input_px"] == [64, 64]
    assert record["host"]["library"] in ("compiled for this run", "installed")
    assert list(record["parts"]) == list(PARTS) == record["settings"]["parts"]
    check_parts(record["parts"])
    for figure in record["figures"]:
        assert figure.keys() == {"name", "unit", "limit", "reached", "is_least", "is_met"}
    assert len(record["figures"]) == 4 + 2 + 1 + 2 + 2 * 5 + 4
    assert "reached" in printed and "Beyond total_ms" in printed and f"Appended to {out}" in printed


def check_parts(parts: dict[str, Any]) -> None:
    """Check that every time has its check, and that what was asked for was done."""
    for name in ("calls", "timings", "submit", "start"):
        assert 0 <= parts[name]["check"]["score_max_abs_difference"] <= parts[name]["check"]["allowed"]
    assert len(parts["calls"]["cases"]) == 4
    for case in parts["calls"]["cases"].values():
        assert case["c"]["wall"]["count"] >= 30 and 0 < case["c"]["overhead_us"]["p50"] < 1e4
        assert case["difference_us"]["p90"] == case["c"]["overhead_us"]["p90"] - case["python"]["overhead_us"]["p90"]
    assert parts["timings"]["threads_16"]["calls"] >= 16 * 100
    assert parts["submit"]["least_waiting"] >= 1  # the engine was busy
    assert list(parts["start"]["parts"]) == ["process", "runtime start", "open", "read image", "first inspection"]
    for threads, call_count in (("default", 400), ("1", 40)):
        one = parts["threads"]["engine_threads"][threads]
        assert set(one["calls_per_s"]["an inspector each"]) == {"1", "2", "4", "8", "16"}
        assert one["together"]["calls"] == call_count and one["together"]["wrong_answers"] == 0
        assert one["together"]["rss_bytes_by_calls"][-1][0] == call_count
    assert parts["soak"]["cycles"] >= 1 and parts["soak"]["failures"] == 0
    assert parts["soak"]["opens"] == 4 * parts["soak"]["cycles"]


def test_records_are_appended_and_only_the_named_parts_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "capi.jsonl"
    out.write_text('{"earlier": 1}\n')
    assert main(["bench", "capi", str(tiny_bundle), *SHORT, "--only", "timings", "-o", str(out)]) == 0
    earlier, record = read_lines(out)
    assert earlier == {"earlier": 1} and list(record["parts"]) == ["timings"]


def test_a_wrong_answer_is_named_and_the_other_parts_go_on(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn_wrongly(process: Any, inspector: int, picture: int) -> Any:
        answer = learn(process, inspector, picture)
        teach(process, picture, {**answer, "map_sum": "1"})
        return answer

    monkeypatch.setattr(crowd, "learn", learn_wrongly)
    out = tmp_path / "capi.jsonl"
    assert main(["bench", "capi", str(tiny_bundle), *SHORT, "--only", "timings,threads", "-o", str(out)]) == EXIT_ERROR
    [record] = read_lines(out)
    assert "a wrong answer: picture" in record["failures"]["threads"] and record["figures"]
    assert all("ndp_rt_timings" in figure["name"] for figure in record["figures"])
    assert "threads failed: the C host: a wrong answer" in capsys.readouterr().out


def test_a_missed_figure_is_said_and_no_error(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndp_rt.bench.capi.calls.MAX_EMPTY_US", 0.0)
    out = tmp_path / "capi.jsonl"
    assert main(["bench", "capi", str(tiny_bundle), *SHORT, "--only", "timings", "-o", str(out)]) == 0
    assert "missed" in capsys.readouterr().out
    assert [figure["is_met"] for figure in read_lines(out)[0]["figures"]] == [False, False]


def test_what_was_measured_until_ctrl_c_is_kept(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*values: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(run.SIMPLE_PARTS, "submit", interrupt)
    out = tmp_path / "capi.jsonl"
    arguments = ["bench", "capi", str(tiny_bundle), *SHORT, "--only", "timings,submit,start", "-o", str(out)]
    assert main(arguments) == EXIT_INTERRUPTED
    [record] = read_lines(out)
    assert not record["is_complete"] and record["parts"]["timings"]["threads_1"]["calls"] > 0
    assert "start" not in record["parts"] and len(record["figures"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "dance"), "--only: expected some of calls, timings, submit, start, threads, soak, got 'dance'."),
        (("--only", "soak"), "--only soak needs --soak S"),
        (("--calls", "31"), "--calls: expected a whole number from 32, got 31."),
        (("--seconds", "0"), "--seconds: expected a number above 0, got 0"),
        (("--soak", "nan"), "--soak: expected a number above 0, got nan"),
    ],
)
def test_arguments_that_are_not_taken_are_refused_before_anything_runs(
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    out = tmp_path / "capi.jsonl"
    assert main(["bench", "capi", str(tiny_bundle), "-o", str(out), *arguments]) == EXIT_ERROR
    assert message in capsys.readouterr().err and not out.exists()


def test_a_bundle_that_is_missing_is_an_error_and_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "capi.jsonl"
    assert main(["bench", "capi", str(tmp_path / "none.ndp"), "-o", str(out)]) == EXIT_ERROR
    assert "none.ndp" in capsys.readouterr().err and not out.exists()


def test_a_number_that_is_none_is_wrong_usage(tiny_bundle: Path) -> None:
    with pytest.raises(SystemExit) as found:
        main(["bench", "capi", str(tiny_bundle), "--calls", "many"])
    assert found.value.code == EXIT_USAGE


def test_figures_are_met_on_the_side_that_is_asked_for() -> None:
    most = Figure(name="a", unit="us", limit=50.0, reached=50.0)
    least = Figure(name="b", unit="%", limit=0.9, reached=0.89, is_least=True)
    assert most.is_met and not least.is_met
    assert (most.asked, least.asked) == ("at most 50 us", "at least 90 %")
    assert (show(0.0213, "us"), show(0.001, "%"), show(0, "")) == ("0.0213 us", "0.1 %", "0")

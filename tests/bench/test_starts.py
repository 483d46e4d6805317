"""Cold starts and pauses, with the tiny bundle in real processes."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from ndp_rt.bench import starts
from ndp_rt.bench.request import BenchRequest
from ndp_rt.bench.run import Bench, write_golden_files
from ndp_rt.bench.table import print_record
from ndp_rt.bench.timed.spec import OURS, TimedSpec
from ndp_rt.bundle import open_bundle
from ndp_rt.errors import EngineError
from tests.bench.fake_process import make_process


def quiet(line: str) -> None:
    """Progress is for people."""


def make_spec(bundle: Path) -> TimedSpec:
    return TimedSpec(
        name="ndp-rt openvino fp32",
        word=OURS,
        kind=OURS,
        bundle=str(bundle),
        precision="fp32",
        batches=(1,),
        backend="openvino",
        plan="fused",
        threads=1,
    )


@pytest.mark.nightly
def test_a_cold_start_is_split_and_a_missing_engine_is_built_in_it(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "HIT_COUNT", 2)
    monkeypatch.setattr(starts, "MISS_COUNT", 1)
    bundle = open_bundle(tiny_bundle)
    image = write_golden_files(bundle, tmp_path)[0]
    found = starts.measure_cold(make_spec(tiny_bundle), bundle, image, quiet)
    hit, miss = found["hit"], found["miss"]
    assert (hit["count"], miss["count"]) == (2, 1)
    assert hit["check"]["score_max_abs_difference"] <= hit["check"]["allowed"]
    assert list(hit["parts"]) == list(starts.PARTS)
    assert hit["parts"]["import"]["p50_ms"] < hit["parts"]["load names"]["p50_ms"]  # NumPy comes with the names
    assert hit["following"]["count"] == 2 and hit["following"]["p50_ms"] > 0
    assert hit["first_ratio"]["low"] <= hit["first_ratio"]["median"] <= hit["first_ratio"]["high"]
    assert sum(part["mean_ms"] for part in hit["parts"].values()) == pytest.approx(hit["total"]["mean_ms"])
    assert miss["parts"]["open"]["p50_ms"] > 1.5 * hit["parts"]["open"]["p50_ms"]


def test_what_the_first_image_takes_longer_is_found_run_by_run() -> None:
    runs = [
        {
            **dict.fromkeys(starts.PARTS, 1.0),
            "first inspection": first,
            "following": later,
            "total": 9.0,
            "score error": 0.0,
        }
        for first, later in ((30.0, 10.0), (24.0, 20.0), (60.0, 40.0))
    ]
    found = starts.summarise_starts(runs, 1e-4)
    assert found["first_ratio"]["median"] == 1.5  # of 3, 1.2 and 1.5; the medians' own ratio is 30 / 20
    assert found["following"]["p50_ms"] == 20.0


def test_a_start_counts_as_many_later_images_as_its_limits_say(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "FOLLOWING_S", 0.0)
    seen: list[list[float]] = []

    def keep(gaps: Iterable[float]) -> float:
        seen.append(list(gaps))
        return seen[-1][0]

    monkeypatch.setattr("statistics.median", keep)
    bundle = open_bundle(tiny_bundle)
    image = write_golden_files(bundle, tmp_path)[0]
    starts.run_once(make_spec(tiny_bundle), bundle, image, float(bundle.golden().score[0]), 1e-4, None)
    assert [len(gaps) for gaps in seen] == [starts.FOLLOWING_MIN]


def test_a_cold_start_that_answers_wrongly_is_not_recorded(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    other = write_golden_files(bundle, tmp_path)[1]
    with pytest.raises(EngineError, match="scored the first golden image"):
        starts.run_once(make_spec(tiny_bundle), bundle, other, float(bundle.golden().score[0]), 1e-4, None)


def test_a_cold_start_that_fails_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"a fresh process failed: .*missing\.png"):
        missing = str(tmp_path / "missing.png")
        starts.run_once(make_spec(tiny_bundle), open_bundle(tiny_bundle), missing, 0.0, 1e-4, None)


def test_the_first_image_after_a_pause_is_compared_with_those_before_it() -> None:
    found = starts.measure_idle(make_process("a", 10.0), 2.0, 1.0, quiet)
    assert found["first"]["count"] == starts.MIN_PAUSE_COUNT
    assert (found["first"]["p50_ms"], found["steady"]["p50_ms"]) == (20.0, 10.0)
    assert found["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_the_record_says_what_the_clock_holds_and_the_table_cuts_no_heading(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {**dict.fromkeys(starts.PARTS, 1.0), "total": 6.0, "following": 0.8, "score error": 2e-7}
    monkeypatch.setattr(starts, "run_once", lambda *values: run)
    bench = Bench(BenchRequest(bundle=tiny_bundle, threads=1), "ndp-rt bench x --cold", lambda line: None)
    bench.measure_cold()
    print_record(Console(width=60, highlight=False), bench.record)
    printed = capsys.readouterr().out
    assert "inside the clock: the start of a process to its first decision" in printed
    assert "1.25 (1.25 to 1.25)" in printed  # a first image over those after it
    assert "\u2026" not in printed and "2.0e-07" in printed

"""Comparing records: matching, intervals, verdicts, and what else differs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench.compare import compare_records, compare_times, pick_record
from ndp_rt.bench.latency import compare_medians
from ndp_rt.errors import InputError
from tests.bench.bench_records import make_idle_record, make_latency_record, make_record, make_row, write_records
from tests.tolerances import assert_close

scipy_stats = pytest.importorskip("scipy.stats", reason="needs SciPy: pip install 'ndp-rt[bench]'")


def make_timed(rounds: list[float], **changes: Any) -> Any:
    """Return a row with these medians of rounds."""
    row = make_row(0, np.random.default_rng(0), **changes)
    return row | {"round_p50_ms": rounds, "latency": row["latency"] | {"p50_ms": float(np.median(rounds))}}


def compare(rounds_a: list[float], rounds_b: list[float], tolerance: float = 0.05) -> Any:
    a, b = (make_record([make_timed(rounds)]) for rounds in (rounds_a, rounds_b))
    return compare_records(a, b, tolerance)


def test_the_interval_is_that_of_scipys_bootstrap(rng: np.random.Generator) -> None:
    a, b = rng.lognormal(4.6, 0.1, 40), rng.lognormal(4.7, 0.1, 30)
    found = scipy_stats.bootstrap(
        (a, b),
        lambda a, b, axis: np.median(b, axis=axis) / np.median(a, axis=axis),
        method="percentile",
        n_resamples=20_000,
        confidence_level=0.95,
    ).confidence_interval
    own = compare_medians(b, a)
    assert_close((own.low, own.high), (found.low, found.high), "bootstrap", "float64")


def test_the_interval_covers_the_truth_about_as_often_as_it_says(rng: np.random.Generator) -> None:
    hits = 0
    for _ in range(40):
        found = compare_medians(rng.lognormal(np.log(1.1), 0.2, 20), rng.lognormal(0.0, 0.2, 20))
        hits += found.low <= 1.1 <= found.high
    assert hits >= 33  # of 40 at 95 %: 33 or fewer has a chance below 0.3 %


def test_rounds_come_before_queries_and_queries_before_nothing() -> None:
    row = make_timed([10.0, 10.1, 10.2, 10.3])
    assert compare_times(row, row)[1] == "rounds"
    assert compare_times(row, row | {"round_p50_ms": [10.0, 10.1]})[1] == "queries"
    found, source = compare_times(row | {"round_p50_ms": []}, row | {"latencies_ms": [], "latency": {"p50_ms": 20.3}})
    assert (source, found.low, found.high) == ("nothing", 0.0, float("inf"))
    assert found.median == pytest.approx(2.0)


STEADY = [100.0, 100.5, 99.5, 100.2, 99.8, 100.1]


@pytest.mark.parametrize(
    ("rounds", "verdict", "loss_count"),
    [
        (STEADY, "same", 0),
        ([time * 1.2 for time in STEADY], "slower", 1),
        ([time * 1.04 for time in STEADY], "same", 0),
        ([time * 0.8 for time in STEADY], "faster", 0),
        ([90.0, 95.0, 109.0, 109.0, 130.0, 95.0, 112.0], "uncertain", 0),
    ],
)
def test_a_row_is_slower_only_with_its_whole_interval(rounds: list[float], verdict: str, loss_count: int) -> None:
    comparison = compare(STEADY, rounds)
    assert comparison.rows[0].verdict == verdict
    assert len(comparison.losses) == loss_count


def test_the_tolerance_decides() -> None:
    slower = [time * 1.2 for time in STEADY]
    assert compare(STEADY, slower, 0.1).losses == [
        "ndp-rt openvino bf16, batch 1, single-stream: p50 is 1.200 times A's, and 1.1 lies below the whole interval"
    ]
    assert compare(STEADY, slower, 0.25).losses == []
    for tolerance in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a number from 0 on"):
            compare(STEADY, slower, tolerance)


def compare_changed(change_a: dict[str, Any], change_b: dict[str, Any]) -> Any:
    return compare_records(make_record([make_timed(STEADY, **change_a)]), make_record([make_timed(STEADY, **change_b)]))


@pytest.mark.parametrize(
    ("error_a", "error_b", "allowed", "is_loss"),
    [
        (1e-6, 2e-3, 1e-3, True),
        (1e-6, 9e-4, 1e-3, False),
        (3e-3, 2e-3, 1e-3, False),  # beyond, but it did not rise
        (1e-6, 0.5, None, False),
    ],
)
def test_an_error_that_rose_beyond_what_is_allowed_is_a_loss(
    error_a: float, error_b: float, allowed: float | None, is_loss: bool
) -> None:
    checks = [{"check": {"map_max_abs_difference": error, "allowed": allowed}} for error in (error_a, error_b)]
    comparison = compare_changed(*checks)
    assert bool(comparison.losses) == is_loss
    assert comparison.rows[0].error_change == pytest.approx(error_b - error_a)


@pytest.mark.parametrize(
    ("metric", "fallen", "source", "is_loss"),
    [
        ("image_rocauc", 0.006, "measured: tiles", True),
        ("aupro", 0.006, "measured: tiles", True),
        ("aupro", 0.004, "measured: tiles", False),
        ("aupro", 0.3, "measured: fabric", False),
    ],
)
def test_an_accuracy_that_fell_on_the_same_data_is_a_loss(
    metric: str, fallen: float, source: str, is_loss: bool
) -> None:
    found = {"image_rocauc": 0.99, "aupro": 0.95, "source": "measured: tiles"}
    changed = found | {metric: float(found[metric]) - fallen, "source": source}  # type: ignore[arg-type]
    comparison = compare_changed({"accuracy": found}, {"accuracy": changed})
    assert bool(comparison.losses) == is_loss


def test_rows_are_matched_by_name_batch_and_scenario(rng: np.random.Generator) -> None:
    a = make_record([make_row(0, rng), make_row(0, rng, batch=8), make_row(1, rng)])
    b = make_record([make_row(0, rng, batch=8), make_row(0, rng, scenario="offline"), make_row(2, rng)])
    comparison = compare_records(a, b)
    assert [row.key for row in comparison.rows] == [("ndp-rt openvino bf16", "8", "single-stream")]
    assert comparison.only_in_a == (
        "ndp-rt openvino bf16, batch 1, single-stream",
        "pytorch fp32, batch 1, single-stream",
    )
    assert len(comparison.only_in_b) == 2


def test_records_without_a_common_row_are_refused_with_what_they_have(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="A has ndp-rt openvino bf16, batch 1, .*; B has pytorch fp32, batch 1"):
        compare_records(make_record([make_row(0, rng)]), make_record([make_row(1, rng)]))


def test_what_else_differs_is_said(rng: np.random.Generator) -> None:
    a, b = make_latency_record(rng, 1), make_latency_record(rng, 1)
    b["machine"]["clock_mhz"]["current"] = 2000.0  # a clock is never twice the same
    assert compare_records(a, b).differences == ()
    b["machine"] = b["machine"] | {"cpu": "Xeon", "gpu": {"name": "H100"}}
    b["versions"] = b["versions"] | {"openvino": "2026.5.0"}
    b["bundle"] = b["bundle"] | {"fingerprint": "0123456789abcdef", "width": 32}
    b["settings"] = b["settings"] | {"threads": 1}
    b["data"] = None
    b["is_complete"] = False
    assert compare_records(a, b).differences == (
        "The machines differ, so a ratio is about them too: cpu: AMD EPYC -> Xeon; gpu: none -> (name H100).",
        "Versions differ: openvino: 2026.4.1 -> 2026.5.0.",
        f"The bundles differ: fingerprint: {a['bundle']['fingerprint']} -> 0123456789abcdef; width: 64 -> 32.",
        "Settings differ: threads: 2 -> 1.",
        "Accuracies are of different data, and those of different sources are not compared.",
        "B is incomplete: its run was ended early.",
    )


def test_the_last_complete_record_is_taken_unless_a_line_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    first, second, third = (
        make_latency_record(rng, 1, command=name, is_complete=name != "third") for name in ("first", "second", "third")
    )
    path = write_records(tmp_path / "a.jsonl", first, second, third)
    assert pick_record(str(path)).record["command"] == "second"
    assert pick_record(f"{path}:1").record["command"] == "first"
    assert pick_record(f"{path}#3").record["command"] == "third"
    with pytest.raises(InputError, match="has no record on line 4; lines 1 to 3 hold records"):
        pick_record(f"{path}:4")


def test_a_file_whose_name_ends_like_a_line_is_taken_as_it_is(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_records(tmp_path / "a#1", make_latency_record(rng, 1))
    assert pick_record(str(path)).path == path


def test_records_that_cannot_be_compared_say_why(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_records(tmp_path / "a.jsonl", make_latency_record(rng, 1, is_complete=False))
    with pytest.raises(InputError, match=r"no complete record among its 1.*a\.jsonl:1"):
        pick_record(str(path))
    path = write_records(tmp_path / "b.jsonl", make_idle_record(rng))
    with pytest.raises(InputError, match="line 1 is a record of mode 'idle' without rows"):
        pick_record(str(path))

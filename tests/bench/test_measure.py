"""Turns and rounds, with processes whose times are given."""

from itertools import pairwise
from typing import Any

import pytest

from ndp_rt.bench.measure import (
    KEPT_COUNT,
    MAX_TURN_S,
    MIN_TURN_COUNT,
    Series,
    count_rounds,
    is_in_round,
    make_row,
    take_turns,
    thin,
)
from ndp_rt.bench.scenarios import SCENARIOS
from tests.bench.fake_process import make_process

SINGLE = SCENARIOS["single-stream"]


def run(processes: list[Any], seconds: float = 1.0, batch: int = 1) -> tuple[dict[str, Series], dict[str, str]]:
    found: dict[str, Series] = {}
    refused: dict[str, str] = {}
    take_turns(processes, SINGLE, batch, seconds, lambda line: None, found, refused)
    return found, refused


def test_processes_take_turns_and_the_first_of_a_round_changes() -> None:
    log: list[str] = []
    run([make_process(name, 1.0, log) for name in "abc"])
    rounds = ["".join(log[index : index + 3]) for index in range(0, len(log), 3)]
    assert rounds[:4] == ["abc", "bca", "cab", "abc"]
    assert len(rounds) == MIN_TURN_COUNT


@pytest.mark.parametrize("query_ms", [0.5, 7.0, 90.0, 300.0, 2000.0])
def test_each_is_timed_for_the_seconds_asked_for_at_least(query_ms: float) -> None:
    process = make_process("a", query_ms)
    found, _ = run([process], seconds=2.0)
    assert sum(turn.elapsed_s for turn in found["a"].turns.values()) >= 2.0 - 1e-9


def test_a_slow_process_takes_part_in_few_rounds_that_are_spread() -> None:
    assert count_rounds(10.0, 1.0) == MIN_TURN_COUNT
    assert count_rounds(10.0, 60_000.0) == 3
    for count in range(3, 21):
        rounds = [index for index in range(20) if is_in_round(index, count, 20)]
        assert len(rounds) == count and rounds[0] == 0
        gaps = [b - a for a, b in pairwise(rounds)]
        assert max(gaps) - min(gaps) <= 1


def test_a_long_run_has_more_turns_instead_of_longer_ones() -> None:
    process = make_process("a", 500.0)
    found, _ = run([process], seconds=100.0)
    assert len(found["a"].turns) == 20
    assert max(turn.elapsed_s for turn in found["a"].turns.values()) <= MAX_TURN_S


def test_others_had_the_processor_so_a_turn_begins_untimed_unless_queries_are_slow() -> None:
    fast, slow = make_process("fast", 1.0), make_process("slow", 5000.0)
    run([fast, slow])
    assert {again for _, again in fast.turns} == {2}
    assert {again for _, again in slow.turns} == {0}


def test_one_that_fails_goes_with_its_times_and_the_others_go_on() -> None:
    good, bad = make_process("good", 1.0), make_process("bad", 1.0, fails_at=4)
    found, refused = run([good, bad])
    assert refused == {"bad": "its process ended by signal 11"}
    assert list(found) == ["good"]
    assert len(found["good"].turns) == MIN_TURN_COUNT
    assert bad.is_closed


def test_an_interrupted_run_keeps_its_whole_rounds() -> None:
    found: dict[str, Series] = {}
    processes = [make_process("a", 1.0), make_process("b", 1.0, stops_at=3)]
    with pytest.raises(KeyboardInterrupt):
        take_turns(processes, SINGLE, 1, 1.0, lambda line: None, found, {})
    assert len(found["b"].turns) == 3


def test_a_ratio_cancels_a_machine_that_slows_down() -> None:
    base, other = make_process("base", lambda n: 1.0 + n), make_process("other", lambda n: 2.0 + 2 * n)
    found, _ = run([base, other])
    row = make_row(other, 1, SINGLE, found["other"], ("base", found["base"]))
    assert row["ratio"] == {"to": "base", "median": 2.0, "low": 2.0, "high": 2.0, "round_count": MIN_TURN_COUNT}
    assert row["check"] == {
        "map_max_abs_difference": 1e-6,
        "allowed": 1e-4,
        "against": "golden maps",
        "image_count": 2,
    }
    assert row["images_per_s"] == pytest.approx(row["latency"]["count"] / (sum(row["latencies_ms"]) / 1e3))


def test_rows_say_what_mlperf_asks_of_their_scenario() -> None:
    for name, share in (("single-stream", 0.9), ("multi-stream", 0.99), ("offline", None)):
        found: dict[str, Series] = {}
        process = make_process("a", 1.0)
        take_turns([process], SCENARIOS[name], 2, 1.0, lambda line: None, found, {})
        row = make_row(process, 2, SCENARIOS[name], found["a"], None)
        assert row.get("percentile", {}).get("share") == share
        turn, _ = process.turns[0]
        assert (turn.method, turn.query_size) == {
            "single-stream": ("decide", 2),
            "multi-stream": ("decide", 8),
            "offline": ("decide_all", 100),  # a round's tenth of a second
        }[name]


def test_long_series_are_thinned_evenly() -> None:
    assert list(thin([1.0, 2.0])) == [1.0, 2.0]
    kept = thin([float(index) for index in range(3 * KEPT_COUNT)])
    assert (len(kept), kept[0], kept[-1]) == (KEPT_COUNT, 0.0, 3 * KEPT_COUNT - 1)
    assert list(kept) == sorted(kept)


def test_streams_side_by_side_add_up() -> None:
    found, _ = run([make_process("a", 10.0)])
    turns = found["a"].turns
    assert Series(warm_up=found["a"].warm_up, turns=turns).images_per_s == pytest.approx(100)
    assert Series(warm_up=found["a"].warm_up, turns=turns, is_side_by_side=True).images_per_s == pytest.approx(1000)

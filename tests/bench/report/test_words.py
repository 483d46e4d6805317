"""Numbers in words."""

import pytest

from ndp_rt.bench.report.words import (
    describe,
    describe_percentile,
    describe_server,
    format_bytes,
    format_number,
    format_plain,
    format_ratio,
    format_share,
    name_rows,
    shorten,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (0.0, "0"),
        (0.0012345, "0.00123"),
        (0.99951, "1.00"),
        (9.996, "10.0"),
        (12.345, "12.3"),
        (999.4, "999"),
        (999.6, "1,000"),
        (12345.6, "12,346"),
        (-4.5678, "-4.57"),
        (3.2e-7, "3.20e-07"),
    ],
)
def test_a_number_has_three_digits(value: float | None, words: str) -> None:
    assert format_number(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(0.5, "0.5"), (20.0, "20"), (1000.0, "1,000"), (0.0001, "0.0001"), (0.0, "0"), (1e-5, "1e-05")]
)
def test_a_plain_number_has_no_idle_zeros(value: float, words: str) -> None:
    assert format_plain(value) == words


def test_memory_and_shares_have_their_units() -> None:
    assert (format_bytes(2**29), format_bytes(3 * 2**29), format_bytes(None)) == ("512 MiB", "1.50 GiB", "\u2013")
    assert format_share(0.1234) == "12.3\u00a0%"


def test_a_ratio_has_its_interval_where_there_is_one() -> None:
    assert format_ratio({"median": 2.0, "low": 1.9, "high": 2.11}) == "2.00 (1.90 to 2.11)"
    assert format_ratio({"median": 2.0, "low": None}) == "2.00"
    assert format_ratio({}) == "\u2013"


def test_a_percentile_says_its_bound_or_what_it_lacks() -> None:
    enough = {"share": 0.9, "estimate_ms": 12.0, "bound_ms": 12.5, "is_enough": True, "query_count": 99}
    assert describe_percentile(enough) == "p90 12.0 ms, \u2264 12.5 ms"
    short = {
        "share": 0.9,
        "estimate_ms": 12.0,
        "bound_ms": None,
        "is_enough": False,
        "query_count": 9,
        "needed_count": 64,
    }
    assert describe_percentile(short) == "p90 12.0 ms, no bound (9 of 64 queries)"
    assert describe_percentile({}) == "\u2013"


def test_a_server_says_whether_its_target_was_met() -> None:
    server = {"target_qps": 8.0, "achieved_qps": 7.5, "latency_bound_ms": 400.0, "is_met": False}
    assert describe_server(server) == "not met: 7.50 of 8.00 queries/s within 400 ms"


def test_rows_are_named_by_what_tells_them_apart() -> None:
    rows = [{"name": "a", "batch": 1, "scenario": "offline"}, {"name": "a", "batch": 8, "scenario": "offline"}]
    assert name_rows(rows) == ["a, batch 1", "a, batch 8"]
    assert name_rows(rows[:1]) == ["a"]


def test_a_long_name_is_cut_in_the_middle() -> None:
    assert shorten("a  b\nc", 10) == "a b c"
    assert shorten("x" * 50 + "end", 12) == "x" * 7 + "\u2026" + "xend"


def test_a_section_is_told_with_its_units_and_without_what_is_not_known() -> None:
    section = {
        "cpu": "EPYC",
        "memory_bytes": 2**31,
        "flags": ["a", "b"],
        "gpu": None,
        "input_px": [64, 64],
        "mhz": {"max": 3.5},
    }
    assert describe(section) == "cpu EPYC, memory 2.00 GiB, flags a b, input px 64 64, mhz (max 3.5)"

"""Summaries of times; MLPerf's figures are those of its rules and of a published log of its load generator."""

import numpy as np
import pytest

from ndp_rt.bench.latency import bound_percentile, compare_pairs, count_allowed, count_needed, summarise


def test_a_summary_has_percentiles_mean_and_variation() -> None:
    found = summarise([1.0, 2.0, 3.0, 4.0])
    assert [found[name] for name in ("count", "p50_ms", "max_ms", "mean_ms")] == [4, 2.5, 4.0, 2.5]
    assert found["cv"] == pytest.approx(np.std([1, 2, 3, 4]) / 2.5)
    assert summarise([5.0])["cv"] == 0.0


@pytest.mark.parametrize(("share", "count"), [(0.9, 64), (0.99, 662)])
def test_the_fewest_queries_are_those_of_mlperf(share: float, count: int) -> None:
    assert count_needed(share) == count
    assert count_allowed(count - 1, share) < 1


def test_a_published_log_discards_as_many() -> None:
    # "Processed at least 64 queries (2048). Would discard 172 highest latency queries": the estimate is the next one.
    times = np.random.default_rng(1).permutation(2048).astype(float)
    assert bound_percentile(list(times), 0.9).bound_ms == 2048 - 172 - 1


def test_too_few_queries_have_no_bound_and_say_how_many_are_needed() -> None:
    found = bound_percentile([1.0] * 63, 0.9)
    assert (found.bound_ms, found.needed_count, found.query_count) == (None, 64, 63)
    assert not found.to_json()["is_enough"]
    assert bound_percentile([1.0] * 64, 0.9).bound_ms == 1.0


@pytest.mark.nightly
def test_the_bound_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true = -np.log(0.1)  # the 90th percentile of an exponential distribution
    bounds = [bound_percentile(list(rng.exponential(size=200)), 0.9).bound_ms or 0.0 for _ in range(1000)]
    assert np.mean(np.array(bounds) >= true) >= 0.99 - 0.01  # three standard errors of 1000 draws


def test_ratios_pair_rounds_so_that_a_slower_machine_cancels() -> None:
    drift = np.linspace(1.0, 3.0, 20)
    found = compare_pairs(list(2 * drift), list(drift))
    assert (found.median, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_an_interval_covers_the_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        found = compare_pairs(list(rng.lognormal(0.5, 0.1, 15)), list(rng.lognormal(0.0, 0.1, 15)))
        assert found.low <= found.median <= found.high
        hits += found.low <= np.exp(0.5) <= found.high
    assert 0.90 <= hits / 300 <= 0.99


def test_one_pair_has_no_interval() -> None:
    found = compare_pairs([3.0], [2.0])
    assert (found.low, found.median, found.high) == (1.5, 1.5, 1.5)

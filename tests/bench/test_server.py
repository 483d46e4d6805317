"""The server scenario's search, with a queue whose outcome is known."""

import numpy as np
import pytest

from ndp_rt.bench.scenarios import draw_arrivals
from ndp_rt.bench.server import judge, serve
from tests.bench.fake_process import make_process, serve_in_order


def test_arrivals_are_random_repeatable_and_come_at_their_rate() -> None:
    arrivals = draw_arrivals(100.0, 50.0, seed=0)
    assert arrivals == draw_arrivals(100.0, 50.0, seed=0)
    gaps = np.diff(arrivals)
    assert len(arrivals) == 5000 and (gaps > 0).all()
    assert np.mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert np.std(gaps) == pytest.approx(0.01, rel=0.05)  # as exponential gaps have it


def test_the_rate_found_keeps_the_bound_and_a_higher_one_does_not() -> None:
    process = make_process("a", 10.0)
    _, served = serve(process, 1, 60.0, target_qps=None, bound_ms=None, tell=lambda line: None)
    assert served.latency_bound_ms == 30.0
    assert served.is_met and served.allowed_count >= 1
    assert 20 < served.target_qps < 100  # 100 images/s is what it does without gaps
    higher = 1.25 * served.target_qps
    assert not judge(serve_in_order(draw_arrivals(higher, 60.0, seed=0), 10.0), higher, 30.0).is_met


def test_a_rate_that_is_given_is_tried_and_judged_as_it_is() -> None:
    series, served = serve(make_process("a", 10.0), 1, 30.0, target_qps=95.0, bound_ms=20.0, tell=lambda line: None)
    assert (served.target_qps, served.latency_bound_ms, served.is_met) == (95.0, 20.0, False)
    assert served.over_bound_count == sum(latency > 20 for latency in series.latencies_ms)


def test_too_few_images_are_judged_in_the_sample_and_say_so() -> None:
    times = serve_in_order(draw_arrivals(10.0, 10.0, seed=0), 1.0)
    served = judge(times, 10.0, 30.0)
    assert served.is_met and served.allowed_count < 1

"""Summaries of times, and what a sample of them can promise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import MissingExtraError

CONFIDENCE = 0.99  # of MLPerf's early stopping
RATIO_CONFIDENCE = 0.95
RESAMPLE_COUNT = 2000
BLOCK_SIZE = 2**20  # times of resamples in memory at once
MOST_NEEDED = 10_000  # for shares up to 0.999
REMEDY = "pip install 'ndp-rt[bench]'"

FloatArray = NDArray[np.float64]


def summarise(times_ms: Sequence[float]) -> dict[str, float]:
    """Return a record's `latency` of at least one time; `cv` is their standard deviation over their mean."""
    p50, p90, p99 = (float(np.percentile(times_ms, share)) for share in (50, 90, 99))
    mean, most = float(np.mean(times_ms)), float(np.max(times_ms))
    cv = float(np.std(times_ms)) / mean if mean > 0 else 0.0
    found = {"count": len(times_ms), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": most}
    return {**found, "mean_ms": mean, "cv": cv}


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """A percentile of a sample, and what is certain of the percentile that lies behind it.

    `bound_ms` is at least the true percentile with CONFIDENCE; None where there are fewer than `needed_count` times.
    """

    share: float
    estimate_ms: float
    query_count: int
    needed_count: int
    bound_ms: float | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_enough": self.bound_ms is not None}


def count_allowed(query_count: int, share: float) -> int:
    """Return how many of `query_count` times may lie above a bound that holds for `share` of all, with CONFIDENCE.

    MLPerf's early stopping without tolerance: the largest t for which t or fewer exceedances are seen with probability
    1 - CONFIDENCE at most, if the bound did not hold. -1: no number is small enough.
    """
    binom = import_binom()
    allowed = int(binom.ppf(1 - CONFIDENCE, query_count, 1 - share)) + 1
    while allowed >= 0 and binom.cdf(allowed, query_count, 1 - share) > 1 - CONFIDENCE:
        allowed -= 1
    return allowed


def count_needed(share: float) -> int:
    """Return the fewest times that bound a percentile: one may lie above, as in MLPerf (64 for 0.9, 662 for 0.99)."""
    counts = np.arange(1, MOST_NEEDED)
    return int(counts[import_binom().cdf(1, counts, 1 - share) <= 1 - CONFIDENCE][0])


def bound_percentile(times_ms: Sequence[float], share: float) -> Percentile:
    """Return the percentile `share` (0 to 1) of times and its early-stopping bound.

    With t exceedances allowed, the bound is the t-th largest time, as MLPerf's load generator has it.
    """
    allowed = count_allowed(len(times_ms), share)
    bound = float(np.sort(times_ms)[-allowed]) if allowed >= 1 else None
    return Percentile(
        share=share,
        estimate_ms=float(np.percentile(times_ms, share * 100)),
        query_count=len(times_ms),
        needed_count=count_needed(share),
        bound_ms=bound,
    )


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of times with its interval (RATIO_CONFIDENCE, bootstrap)."""

    median: float
    low: float
    high: float


def compare_pairs(times_ms: Sequence[float], base_ms: Sequence[float]) -> Ratio:
    """Return the median of times / base, pair by pair; one pair has no interval of its own: low = median = high."""
    ratios = np.asarray(times_ms, np.float64) / np.asarray(base_ms, np.float64)
    median = float(np.median(ratios))
    if len(ratios) < 2:
        return Ratio(median=median, low=median, high=median)
    return make_ratio(median, resample_medians(ratios, np.random.default_rng(0)))


def compare_medians(times_ms: Sequence[float], base_ms: Sequence[float]) -> Ratio:
    """Return median(times) / median(base), each resampled by itself; the same every time."""
    rng = np.random.default_rng(0)
    times, base = (resample_medians(np.array(values), rng) for values in (times_ms, base_ms))
    return make_ratio(float(np.median(times_ms) / np.median(base_ms)), times / base)


def make_ratio(median: float, resampled: FloatArray) -> Ratio:
    """Return a ratio with the interval of its resamples."""
    tail = (1 - RATIO_CONFIDENCE) / 2 * 100
    low, high = np.percentile(resampled, (tail, 100 - tail))
    return Ratio(median=median, low=float(low), high=float(high))


def resample_medians(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return float64 [RESAMPLE_COUNT], the medians of resamples of values [k]."""
    block = max(1, BLOCK_SIZE // values.size)
    counts = [min(block, RESAMPLE_COUNT - start) for start in range(0, RESAMPLE_COUNT, block)]
    return np.concatenate([np.median(rng.choice(values, (count, values.size)), axis=1) for count in counts])


def import_binom() -> Any:
    """Return SciPy's binomial distribution.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy.stats import binom
    except ImportError as error:
        raise MissingExtraError(f"{error}. The benchmark needs SciPy: {REMEDY}") from error
    return binom

"""Compares scores with the threshold: the only place that decides, for every backend and language; NumPy alone."""

import numpy as np

from ndp_rt.errors import EngineError


def is_defective(score: float, threshold: float) -> bool:
    """Tell whether a score reaches the threshold."""
    return score >= threshold


def lowest_reaching(threshold: float) -> np.float32:
    """Return the smallest float32 that reaches the threshold, so that maps compare exactly as their maximum does."""
    with np.errstate(over="ignore"):
        limit: np.float32 = np.float32(threshold)
    if float(limit) < threshold:
        limit = np.float32(np.nextafter(limit, np.float32(np.inf)))
    return limit


def not_finite() -> EngineError:
    """Return the error of a map that holds NaN or infinity."""
    return EngineError(
        "anomaly map: expected finite values, got NaN or infinity from the engine, so there is no score. Build it "
        "again with 'ndp-rt build-engine --rebuild', in fp32 if this was a lower precision."
    )

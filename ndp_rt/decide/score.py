"""From a smoothed map to its score, by the rules of the bundle; on a host."""

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.kernels.top_k_mean.host import top_k_mean
from ndp_rt.program.program import DecisionRules


def score_map(smoothed: FloatArray, rules: DecisionRules) -> float:
    """Return the score of a finite smoothed map [h, w]: its largest value, or the mean of its k largest.

    A map with fewer than k values is averaged whole.
    """
    if rules.score == "max":
        return float(np.max(smoothed))
    out, values = np.empty(1, np.float32), np.ascontiguousarray(smoothed).reshape(1, -1)
    top_k_mean(values, min(rules.k, values.size), out, np.empty(values.size, np.float32))
    return float(out[0])

"""From a smoothed map to its score, by the rules of the bundle; on a host."""

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.decide.counting import Counting
from ndp_rt.decide.opening import find_level, list_opened
from ndp_rt.kernels.top_k_mean.host import top_k_mean
from ndp_rt.program.program import DecisionRules


def score_map(smoothed: FloatArray, rules: DecisionRules) -> float:
    """Return the score of a finite smoothed map [h, w]: its largest value, or the mean of its k largest.

    A map with fewer than k values is averaged whole.
    """
    assert rules.score != "output"  # it is none of the map's
    if rules.score == "max":
        return float(np.max(smoothed))
    out, values = np.empty(1, np.float32), np.ascontiguousarray(smoothed).reshape(1, -1)
    top_k_mean(values, min(rules.k, values.size), out, np.empty(values.size, np.float32))
    return float(out[0])


def score_counted(smoothed: FloatArray, rules: DecisionRules, counting: Counting) -> float:
    """Return the score of what counts of a finite smoothed map [h, w].

    With an area it is that of the opened map: what is higher than any region large enough is cut off. So it reaches a
    threshold, by the rule `max`, exactly where a region that counts does.
    """
    pixels, least_area = counting.pixels, counting.least_area
    if least_area == 1 and rules.score == "max" and pixels is not None:
        return float(np.max(smoothed, where=pixels, initial=-np.inf))  # without a copy: the map may be a large image's
    if least_area == 1:
        return score_map(smoothed if pixels is None else smoothed[pixels][np.newaxis], rules)
    if rules.score == "max":
        return float(find_level(smoothed, pixels, least_area))
    return score_map(list_opened(smoothed, pixels, least_area, rules.k)[np.newaxis], rules)

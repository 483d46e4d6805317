"""Areas under curves of rates, with what each image adds to them: how sure a difference between two engines is.

The sum of what images add is 0, and the root of the sum of its squares is the area's standard error. Of two engines on
the same images, what they add is subtracted image by image first: what makes an image hard for both cancels. For image
ROCAUC this is DeLong's test (DeLong, DeLong and Clarke-Pearson 1988), for pixels Obuchowski's form of it for groups of
observations (1997), and the area up to a limit of the false positive rate follows the same way. pauc and others have
the first alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """Where defective values lie among the good ones, and the other way round."""

    fpr: Values  # of each defective value: the share of good ones above it, ties as half
    good_places: NDArray[np.int64]  # of each good value: how many sorted defective ones are below it
    good_ends: NDArray[np.int64]  # and below it or equal
    order: NDArray[np.int64]  # that sorts the defective values


def rank(good: FloatArray, defective: FloatArray) -> Ranks:
    """Rank defective values [b] and good values [g] against each other."""
    rising = np.sort(good)
    below, reached = (np.searchsorted(rising, defective, side=side) for side in ("left", "right"))
    order = np.argsort(defective, kind="stable")
    places, ends = (np.searchsorted(defective[order], good, side=side) for side in ("left", "right"))
    return Ranks(fpr=1.0 - (below + reached) / (2.0 * good.size), good_places=places, good_ends=ends, order=order)


def measure_area(
    ranks: Ranks,
    weights: Values,
    *,
    good_images: NDArray[np.integer],
    defective_images: NDArray[np.integer],
    image_count: int,
    limit: float = 1.0,
) -> tuple[float, Values]:
    """Return the area under the weighted true positive rate up to a false positive rate, over that, and its parts.

    Args:
        ranks: of the values.
        weights: float64 [b], of the defective values, above 0.
        good_images: the image of each good value, [g].
        defective_images: the image of each defective value, [b].
        image_count: of all.
        limit: of the false positive rate, in (0, 1].

    Returns:
        0 to 1, and float64 [image_count]: what each image adds.
    """
    shares = weights / weights.sum()
    gains = np.maximum(0.0, limit - ranks.fpr) / limit
    area = float(shares @ gains)
    passed = np.concatenate([[0.0], np.cumsum((shares * (ranks.fpr < limit))[ranks.order])])
    losses = (passed[ranks.good_places] + passed[ranks.good_ends]) / 2.0
    losses = (losses - losses.mean()) / (limit * losses.size)
    gained = np.bincount(defective_images, shares * (gains - area), image_count)
    return area, np.asarray(gained - np.bincount(good_images, losses, image_count), np.float64)

"""Whether two bundles hold one network, the second as it is exported without the exact rewrites."""

import numpy as np

from ndp_rt.bundle.open import Bundle
from ndp_rt.errors import InputError

SAME_NETWORK = 1e-3  # golden maps of two exports of one network differ by float32 roundings alone


def check_same_network(rewritten: Bundle, plain: Bundle) -> None:
    """Check that `plain` holds the network of `rewritten`, and no rewrites.

    Raises:
        InputError: it holds rewrites, or another network.
    """
    if plain.manifest.model.rewrites:
        raise InputError(
            f"{plain.path.name} has the rewrites {', '.join(plain.manifest.model.rewrites)}; expected a plain bundle: "
            "ndp-rt export RUN -o PLAIN.ndp --no-rewrite."
        )
    a, b = rewritten.golden(), plain.golden()
    is_same = (
        rewritten.manifest.input == plain.manifest.input
        and a.image.shape == b.image.shape
        and np.array_equal(a.image, b.image)
        and float(np.abs(a.map - b.map).max()) <= SAME_NETWORK
    )
    if not is_same:
        raise InputError(
            f"{rewritten.path.name} and {plain.path.name} answer differently to their golden images; two exports of "
            "one run are compared."
        )

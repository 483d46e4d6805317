"""What a page of `ndp_rt.bench.models` states of an inspection method: its inference graph, at its true cost.

The pages are for time, not for accuracy: weights, memory banks and reference images are random numbers of the real
sizes. What a method computes for one image at inspection, it computes here too; training is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Percent on MVTec AD's five textures, the means of tables II to IV of the NDP-Net paper; None: not there."""

    image_rocauc: float | None = None
    pixel_rocauc: float | None = None
    pro_auc: float | None = None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One method as a benchmark runs it."""

    name: str  # as in --against, lower case with hyphens
    title: str  # as its paper writes it
    source: str  # authors, title, year, arXiv number or venue
    input_px: int  # side of the square that its network sees; the page's module resizes to it
    counted: tuple[str, ...]  # what costs time and at which size, a sentence each, with where the figure is from
    left_out: tuple[str, ...]  # what the page leaves out or chooses because the source does not say, a sentence each
    reported: Reported
    # Returns a torch.nn.Module in eval mode, weights drawn with seed 0, that takes image float32 [n, 3, h, w], 0 to 1,
    # to (map float32 [n, 1, h, w], score float32 [n]). h and w are the caller's; n is any.
    build: Callable[[], Any]
    is_graph: bool = True  # False where it cannot be exported as one graph: it iterates on gradients, for instance
    typical_s: float = 1.0  # what an image takes on two cores, to the power of ten: benches plan with it

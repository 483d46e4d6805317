"""Who is timed, and what is asked of it; all of it travels between processes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.rivals.base import Check
from ndp_rt.bundle.open import Bundle

OURS, SAME_NETWORK, OTHER_NETWORK = "ndp-rt", "same network", "other network"  # kinds
NO_THRESHOLD = 0.5  # where a bundle has none; the time hardly depends on it

Image = NDArray[np.uint8]  # [h, w, 3], RGB
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TimedSpec:
    """How one that is timed is opened."""

    name: str  # of its rows: "ndp-rt openvino bf16", "padim fp32"
    word: str  # as --against has it; OURS for an inspector of ours
    kind: str  # OURS, SAME_NETWORK or OTHER_NETWORK
    bundle: str  # of a rival with this network: the one that was exported plain, where it was given
    precision: str
    batches: tuple[int, ...]
    device: str = "cpu"
    backend: str | None = None
    plan: str | None = None
    threads: int | None = None
    models_on: str = "pytorch"
    fit: str | None = None  # of another network: images that it is fitted to
    onnx_stages: str | None = None  # of ours on a GPU: typed stages that were written elsewhere


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What one says of itself once it is open."""

    backend: str
    plan: str | None = None
    checks: Mapping[int, Check]  # how far its maps are from those that it should give, by batch size
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Timed:
    """What is timed, opened and checked; one call at a time, all from the thread that opened it."""

    opened: Opened

    def decide(self, images: Sequence[Image], batch: int) -> None:
        """Take images in the host's memory to decisions, in batches of `batch`: what the clock holds."""
        raise NotImplementedError

    def decide_all(self, images: Iterable[Image], batch: int) -> None:
        """The same for images that are all there, the fastest way it has."""
        raise NotImplementedError

    def decide_large(self, images: Sequence[Image], batch: int) -> None:
        """The same in overlapping tiles, without resizing; ours alone has that."""
        raise NotImplementedError

    def take_parts(self) -> Mapping[str, float]:
        """Return an image's milliseconds in each part it tells apart, the mean since the last call; empty: none."""
        raise NotImplementedError

    def judge(self, image: Image) -> tuple[FloatArray, float]:
        """Return the smoothed map [h, w] of an image of any size, at that size, and its score; outside every clock."""
        raise NotImplementedError

    def close(self) -> None:
        """Free everything; twice is allowed."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How one was warmed up. `query_ms` is what a query then takes."""

    query_count: int
    is_stable: bool
    query_ms: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is done in a turn.

    Queries of `query_size` images, one after another, for `seconds` and one of them at least; or, with `arrivals_s`,
    one image at each of these moments, up to `batch` of those that wait together.
    """

    batch: int
    query_size: int
    seconds: float = 0.0
    method: str = "decide"  # of `Timed`
    arrivals_s: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TurnTimes:
    """What a turn took. With "decide_all", `latencies_ms` are a query's time over its images."""

    latencies_ms: list[float]
    image_count: int
    elapsed_s: float
    parts_ms: Mapping[str, float]  # an image's, the mean over the turn, as `Timed.take_parts` has them


def choose_threshold(bundle: Bundle, precision: str) -> float:
    """Return what to decide by: the bundle's threshold for a precision, else that for fp32, else NO_THRESHOLD."""
    values = (bundle.threshold(precision).value, bundle.threshold("fp32").value, NO_THRESHOLD)
    return next(value for value in values if value is not None)

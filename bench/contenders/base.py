"""What a contender does inside its process."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.peers.base import Check

Image = NDArray[np.uint8]  # [h, w, 3], RGB
FloatArray = NDArray[np.float32]


class Contender(Protocol):
    """Opened and checked; one call at a time, all from the thread that opened it."""

    @property
    def backend(self) -> str: ...

    @property
    def plan(self) -> str | None: ...

    @property
    def checks(self) -> Mapping[int, Check]:
        """How far its maps are from those that it should give, by batch size."""
        ...

    @property
    def notes(self) -> Sequence[str]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def decide(self, images: Sequence[Image], batch: int) -> None:
        """Take images in the host's memory to decisions, in batches of `batch`: what the clock holds."""
        ...

    def decide_all(self, images: Iterable[Image], batch: int) -> None:
        """The same for images that are all there, the fastest way it has."""
        ...

    def decide_large(self, images: Sequence[Image], batch: int) -> None:
        """The same in overlapping tiles, without resizing.

        Raises:
            InputError: it has no such way.
        """
        ...

    def take_parts(self) -> Mapping[str, float]:
        """Return an image's milliseconds in each part it tells apart, the mean since the last call; empty: none."""
        ...

    def judge(self, image: Image) -> tuple[FloatArray, float]:
        """Return the smoothed map [h, w] of an image of any size, at that size, and its score; outside every clock."""
        ...

    def close(self) -> None:
        """Free everything; twice is allowed."""
        ...

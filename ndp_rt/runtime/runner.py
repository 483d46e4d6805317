"""What an inspector runs its images through: preprocessing, plan and smoothing, on a host or on a GPU."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.runtime.times import Times

FloatArray = NDArray[np.float32]


class Slot(Protocol):
    """The memory of one batch on its way through a runner; made once, used again and again, by one thread at a time."""

    @property
    def times(self) -> Sequence[Times]:
        """The times of each image of the batch that finished last; what the batch took is shared out."""
        ...

    def smooth(self, index: int) -> FloatArray:
        """Return image `index`'s smoothed map, float32 [h, w], in memory that is overwritten later.

        Raises:
            EngineError: the map holds NaN or infinity.
        """
        ...

    def copy_reconstruction(self, index: int) -> FloatArray:
        """Return image `index`'s reconstruction, float32 [h, w, 3], 0 to 1, the caller's; asked for at `start`."""
        ...


class Runner(Protocol):
    """Turns images into smoothed maps. `finish` and everything not said otherwise: one call at a time."""

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that engines were built for, ascending."""
        ...

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that `Times.stages_ms` tells apart."""
        ...

    @property
    def engine_hash(self) -> str:
        """Names the engines and the reference that the results come from."""
        ...

    @property
    def stream_slot_count(self) -> int:
        """How many slots keep everything busy while frames stream through."""
        ...

    def check_image(self, image: Any) -> tuple[int, int]:
        """Return the height and width in pixels of an image that this takes, from any thread.

        Raises:
            InputError: it is not; the message says which are.
        """
        ...

    def make_slot(self) -> Slot:
        """Return memory for batches of up to the largest size; it is the runner's, and goes with `close`."""
        ...

    def release_slot(self, slot: Any) -> None:
        """Take a slot back, whether its batch was finished or not; the caller uses it no more."""
        ...

    def start(self, slot: Any, images: Sequence[Any], size: int, *, keep_reconstruction: bool = False) -> None:
        """Take images that `check_image` passed, at most `size` of them; afterwards they may be overwritten.

        May run in one thread per slot, beside `finish` of others. `size` is one of `batch_sizes`.

        Raises:
            ClosedError: after close().
        """
        ...

    def finish(self, slot: Any) -> None:
        """Complete what `start` began; the slot then holds the maps.

        Raises:
            EngineError, DeviceError: the backend or the device failed.
            ClosedError: after close().
        """
        ...

    def set_reference(self, image: Any) -> None:
        """Use another reference from the next `start` on; beside runs, but not beside itself."""
        ...

    def close(self) -> None:
        """Free engines and buffers; twice is allowed."""
        ...

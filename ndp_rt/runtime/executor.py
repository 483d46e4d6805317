"""Executors: they run a program on a device, images in, anomaly maps out."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ndp_rt.arrays import FloatArray
from ndp_rt.errors import ClosedError
from ndp_rt.runtime.times import Times


class Batch(Protocol):
    """The memory of one batch on its way through an executor; made once, used again and again, one thread at a time."""

    @property
    def times(self) -> Sequence[Times]:
        """The times of each image of the batch that finished last; what the batch took is shared out."""
        ...

    def score(self, index: int) -> float:
        """Return image `index`'s score, by the bundle's rules.

        Raises:
            EngineError: the map holds NaN or infinity.
        """
        ...

    def read_map(self, index: int) -> FloatArray:
        """Return the smoothed map, float32 [h, w], of the image whose score was asked for last; overwritten later."""
        ...

    def copy_output(self, name: str, index: int) -> FloatArray:
        """Return another output of image `index`, float32 [h, w, c], the caller's; it was asked for at `start`."""
        ...


class Executor(Protocol):
    """Runs one of a bundle's programs. `finish` and everything not said otherwise: one call at a time.

    Engines and tensors are allocated when it is opened.
    """

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that engines were built for, ascending."""
        ...

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The steps that `Times.stages_ms` tells apart; none where they run as one."""
        ...

    @property
    def engine_hash(self) -> str:
        """Names the engines and the assets that the results come from."""
        ...

    @property
    def stream_batch_count(self) -> int:
        """The number of batches that keep everything busy while frames stream through."""
        ...

    def check_image(self, image: Any) -> tuple[int, int]:
        """Return the height and width in pixels of an image that this takes, from any thread.

        Raises:
            InputError: it does not; the message says which are expected.
        """
        ...

    def make_batch(self) -> Any:
        """Return memory for batches of up to the largest size, a `Batch`; it goes with `close`."""
        ...

    def release_batch(self, batch: Any) -> None:
        """Take a batch back, whether it was finished or not; the caller uses it no more."""
        ...

    def share_streams(self) -> Callable[[], None]:
        """Return what another thread calls, so that images it hands over are read after this thread's work on a device.

        It may raise DeviceError.
        """
        ...

    def start(
        self, batch: Any, images: Sequence[Any], size: int, *, outputs: Sequence[str] = (), wants_maps: bool = True
    ) -> None:
        """Take images that `check_image` passed, at most `size` of them; afterwards they may be overwritten.

        May run in one thread per batch, beside `finish` of others.

        Args:
            batch: of `make_batch`; its last run is finished.
            images: at least one.
            size: one of `batch_sizes`.
            outputs: of the program, beside the map, that `copy_output` will be asked for.
            wants_maps: False: `read_map` will be asked for seldom.

        Raises:
            ClosedError: after close().
        """
        ...

    def finish(self, batch: Any) -> None:
        """Complete what `start` began; the batch then holds scores and maps.

        Raises:
            EngineError, DeviceError: the backend or the device failed.
            ClosedError: after close().
        """
        ...

    def run(self, images: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run preprocessed images, float32 [n, 3, h, w], n one of `batch_sizes`, and wait: for checks.

        Returns:
            The maps before smoothing, float32 [n, 1, h, w], and the scores, float32 [n].
        """
        ...

    def profile(self) -> dict[str, float]:
        """Return the milliseconds of each step, by its name, for the smallest batch; of one engine none."""
        ...

    def set_asset(self, image: Any) -> None:
        """Make the swappable asset from another image, for use from the next `start` on; beside runs, not itself."""
        ...

    def close(self) -> None:
        """Free engines and memory; twice is allowed."""
        ...


def forked() -> ClosedError:
    """Return the error of a call in the child of a fork, which has none of the engine's threads."""
    return ClosedError(
        "the inspector: expected the process that opened it, got one that was forked from it. Open another in each "
        "process, and start them with 'spawn' or 'forkserver': multiprocessing.get_context('spawn')."
    )


def closed() -> ClosedError:
    """Return the error of a call after `close`."""
    return ClosedError("the inspector is closed; open another with Inspector.open().")

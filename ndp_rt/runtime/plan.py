"""What a plan is: the steps of one model over named buffers."""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ndp_rt.engines.engine import Call
from ndp_rt.errors import ClosedError, InputError, NdpRtError

FloatArray = NDArray[np.float32]
Features = Mapping[str, FloatArray]  # the reference's f3, f4, f5: [1, c, h, w]


class Plan(Protocol):
    """Runs a model on a batch. One call at a time, from any thread; `make_reference` alone may run beside the others.

    Buffers are allocated when the plan is opened; a run allocates nothing.
    """

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that were built, ascending."""
        ...

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The keys of `stage_timings_ms`; none where the model is one engine."""
        ...

    @property
    def stage_timings_ms(self) -> Mapping[str, float]:
        """How long each stage of the last run took, for the whole batch."""
        ...

    @property
    def engine_hash(self) -> str:
        """Names the engines and the reference that the results come from."""
        ...

    def run(self, batch: FloatArray, map_out: FloatArray, reconstruction_out: FloatArray) -> None:
        """Compute maps and reconstructions.

        Args:
            batch: float32 [n, 3, h, w], dense, 0 to 1; n is one of `batch_sizes`.
            map_out: float32 [n, 1, h, w], dense; overwritten: AM_final before smoothing.
            reconstruction_out: float32 [n, 3, h, w], dense; overwritten.

        Raises:
            EngineError: the backend failed.
            ClosedError: after close().
        """
        ...

    def compute_features(self, image: FloatArray) -> dict[str, FloatArray]:
        """Return f3, f4, f5 of image, float32 [1, 3, h, w], in arrays of their own."""
        ...

    def make_reference(self, features: Features) -> Any:
        """Prepare a new reference without disturbing runs; seconds where an engine has to be compiled.

        Raises:
            InputError: features of other names or shapes.
            EngineError: the backend refuses the changed model.
        """
        ...

    def use_reference(self, prepared: Any) -> None:
        """Use what `make_reference` returned from the next run on; takes no time."""
        ...

    def close(self) -> None:
        """Free engines and buffers; twice is allowed."""
        ...


@runtime_checkable
class OverlappingPlan(Plan, Protocol):
    """A plan that also takes batches beside each other."""

    @property
    def stream_count(self) -> int:
        """How many batches compute at once if they are not bound to run alone; 0: the engines can't, and none binds."""
        ...

    def bind(self, batch: FloatArray, map_out: FloatArray, reconstruction_out: FloatArray, *, is_alone: bool) -> Call:
        """Return a call for these arrays with the reference of now; `use_reference` and `close` end its being open.

        Args:
            batch: as for `run`; stays bound.
            map_out: likewise.
            reconstruction_out: likewise.
            is_alone: see `ndp_rt.engines.engine.OverlappingEngine.bind`.

        Raises:
            EngineError: the backend failed.
            ClosedError: after close().
        """
        ...


def hash_features(features: Features) -> str:
    """Return a short name of a reference: 12 hex digits of its features' SHA-256."""
    digest = hashlib.sha256()
    for name in sorted(features):
        digest.update(np.ascontiguousarray(features[name], np.float32).tobytes())
    return digest.hexdigest()[:12]


def missing_size(count: int, batch_sizes: tuple[int, ...]) -> NdpRtError:
    """Return the error of a batch that no engine was built for."""
    if not batch_sizes:
        return ClosedError("the plan is closed. Open another.")
    return InputError(f"the batch holds {count} images; engines were built for {batch_sizes}. Fill one of these.")

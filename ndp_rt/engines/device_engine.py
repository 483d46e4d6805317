"""What an engine on a GPU is: it works on device addresses and one stream, and never waits for the device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ndp_rt.engines.base import BackendStatus, EngineOptions
from ndp_rt.specs import TensorSpec

# Tensor types at the borders of an engine, with their bytes. bfloat16 is held as uint16 where a library lacks it.
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class DeviceEngine(Protocol):
    """One stage compiled for one GPU, precision and batch size, with one execution context.

    One call at a time. Different engines may be enqueued to different streams at once. The GIL is free in `enqueue`.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that it reads: dense, with the engine's own batch as first axis, `dtype` one of DTYPE_BYTES."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that it writes, likewise."""
        ...

    @property
    def held_bytes(self) -> int:
        """Device memory that it holds between calls: weights and scratch, without inputs and outputs."""
        ...

    def bind(self, pointers: Mapping[str, int]) -> None:
        """Set the device address of every input and output; they hold until the next `bind`.

        The memory is the caller's, aligned to 256 bytes, and outlives the last `enqueue`. Names that the engine does
        not know are left alone, so that one mapping serves all engines of a plan.

        Raises:
            InputError: an address is missing or refused.
            ClosedError: after close().
        """
        ...

    def enqueue(self, stream: int) -> None:
        """Put the stage's work on a stream (a cudaStream_t as a number) and return before it is done.

        Allocates nothing after the first call and never synchronises, so that it can be captured into a CUDA graph.

        Raises:
            EngineError: the library refuses.
            ClosedError: after close().
        """
        ...

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        """Return, for each layer type, how many layers compute in which precision, as the library reports it."""
        ...

    def close(self) -> None:
        """Free it; the caller has waited for the stream. Twice is allowed."""
        ...


class DeviceBackend(Protocol):
    """What a GPU backend's module offers; see `ndp_rt.engines.base.Backend` for the host's."""

    @property
    def name(self) -> str: ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that it offers."""
        ...

    def find(self) -> BackendStatus:
        """Look for the backend without importing it; never raises."""
        ...

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        """Compile a typed stage (`ndp_rt.engines.typed_graph`) into files in the empty folder `artifact`.

        Returns notes to store: what was measured, versions, the log's file name.

        Raises:
            MissingExtraError: the backend is not installed.
            DeviceError: there is no GPU, or its driver is too old.
            EngineError: the backend refuses the model.
            InputError: a precision that it does not offer.
        """
        ...

    def load(self, artifact: Path, options: EngineOptions) -> DeviceEngine:
        """Load what `compile` wrote; raises the same."""
        ...

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        """Check what an engine says of its layers.

        Raises:
            EngineError: the arithmetic is not done in `precision`.
        """
        ...

"""What an engine on a GPU is: it works on device addresses and one stream, and never waits for the device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ndp_rt.engines.base import AnyBackend, EngineOptions
from ndp_rt.program.tensors import TensorSpec

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


class DeviceBackend(AnyBackend, Protocol):
    """What a backend's module offers whose engines run on a GPU; see `ndp_rt.engines.base.Backend` for the host's."""

    def load(self, artifact: Path, options: EngineOptions) -> DeviceEngine:
        """Load what `compile` wrote onto the thread's current GPU; raises the same."""
        ...

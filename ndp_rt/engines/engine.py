"""Engines, whichever library runs them: one class for the host, which takes arrays, and one for a GPU."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from ndp_rt.arrays import FloatArray as FloatArray
from ndp_rt.errors import ClosedError, InputError
from ndp_rt.program.tensors import DTYPE_BYTES as DTYPE_BYTES
from ndp_rt.program.tensors import TensorSpec


class Engine(ABC):
    """One ONNX stage compiled for the host: one backend, precision and batch size.

    One call at a time: `run` may be called from any thread, but not from two at once. The GIL is free while it runs.
    A backend's own engine says how its library reads and writes the caller's memory (`_point`) and computes.
    """

    def __init__(self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        """Take the tensors that are read and written; the batch axis is the engine's own batch."""
        self.inputs = inputs
        self.outputs = outputs
        self._bound: tuple[FloatArray, ...] | None = None  # the last call's arrays, kept alive and known by identity

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """False after close()."""

    @abstractmethod
    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        """Return, for each layer type, how many layers compute in which precision, as the backend reports it."""

    @abstractmethod
    def close(self) -> None:
        """Free the engine; twice is allowed."""

    @abstractmethod
    def _point(self, arrays: Mapping[str, FloatArray]) -> None:
        """Let the library read and write these arrays of the caller's, one for each input and output."""

    @abstractmethod
    def _compute(self) -> None:
        """Run on the arrays of the last `_point`; raises EngineError."""

    def run(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> None:
        """Compute `outputs` from `inputs`: float32, C-contiguous, writeable, owned by the caller.

        The arrays of the last call stay bound: passing the same objects again costs no copy and no allocation.

        Raises:
            InputError: a tensor is missing or read-only, or its shape, type or layout differs.
            EngineError: the backend failed.
            ClosedError: after close().
        """
        self._check_open()
        if not self._holds(inputs, outputs):
            arrays = self._check_arrays(inputs, outputs)
            self._bound = None
            self._point(arrays)
            self._bound = tuple(arrays.values())
        self._compute()

    def _holds(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> bool:
        """Tell whether these are the very same array objects as in the last call."""
        if self._bound is None:
            return False
        bound = iter(self._bound)
        for specs, arrays in ((self.inputs, inputs), (self.outputs, outputs)):
            for name in specs:
                if arrays.get(name) is not next(bound):
                    return False
        return True

    def _check_arrays(
        self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]
    ) -> dict[str, FloatArray]:
        """Return the arrays by name, inputs first; raises InputError."""
        check_arrays("inputs", inputs, self.inputs)
        check_arrays("outputs", outputs, self.outputs)
        return {name: inputs[name] for name in self.inputs} | {name: outputs[name] for name in self.outputs}

    def _check_open(self) -> None:
        if not self.is_open:
            raise ClosedError("the engine is closed. Load it again.")


class Call(Protocol):
    """An engine's call with arrays of its own, which may compute while others of the same engine do.

    `start` and `wait` by turns; they need not be called by the same thread, and several may ask and wait at once. The
    GIL is free in both.
    """

    @property
    def is_open(self) -> bool:
        """False after the engine's close(): what was started can still be waited for; bind anew for another call."""
        ...

    @property
    def is_computing(self) -> bool:
        """True from `start` until the call has ended; the arrays are the engine's until then."""
        ...

    def start(self) -> None:
        """Begin, or queue until other calls leave room; returns at once.

        Raises:
            EngineError: the backend failed.
            ClosedError: after the engine's close().
        """
        ...

    def wait(self) -> float:
        """Wait for the end of what `start` began; return the milliseconds from there to its end, queueing included.

        Raises:
            EngineError: the backend failed.
            ClosedError: nothing was started before the engine's close().
        """
        ...


class OverlappingEngine(Engine):
    """An engine that can also compute several calls beside each other."""

    stream_count: int  # how many calls compute at once if they are not bound to run alone, each on some of the threads

    @abstractmethod
    def bind(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray], *, is_alone: bool) -> Call:
        """Return a call of the model with these arrays; not beside itself, but beside runs.

        Args:
            inputs: as for `run`; they stay bound.
            outputs: likewise; not those of another call that computes at the same time.
            is_alone: it gets all threads: for one call at a time. False: it shares them with others like it, which
                takes more time for one and less for many. The first of these loads the model once more.

        Raises:
            InputError: as for `run`.
            EngineError: the model cannot be loaded once more.
            ClosedError: after close().
        """


class DeviceEngine(Protocol):
    """One stage compiled for one GPU, precision and batch size, with one execution context.

    One call at a time. Different engines may be enqueued to different streams at once. The GIL is free in `enqueue`.
    """

    held_bytes: int  # device memory that it holds between calls: weights and scratch, without inputs and outputs

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that it reads: dense, with the engine's own batch as first axis, `dtype` one of DTYPE_BYTES."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that it writes, likewise."""
        ...

    def bind(self, pointers: Mapping[str, int]) -> None:
        """Set the device address of every input and output; they hold until the next `bind`.

        The memory is the caller's, aligned to 256 bytes, and outlives the last `enqueue`. Names that the engine does
        not know are left alone, so that one mapping serves all engines of a program.

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


def one_line(error: Exception) -> str:
    """Return a library's message, often several lines with its own source paths, as one line for ours."""
    return " ".join(str(error).split())


def check_arrays(what: str, arrays: Mapping[str, FloatArray], specs: Mapping[str, TensorSpec]) -> None:
    """Check arrays by name against an engine's tensors.

    Raises:
        InputError: one is missing or read-only, or its shape, type or layout differs.
    """
    for name, spec in specs.items():
        if name not in arrays:
            raise InputError(f"expected '{name}' among the {what}, got {', '.join(arrays) or 'none'}. Pass it.")
        array = arrays[name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"expected a float32 NumPy array as '{name}' in {what}, got {type(array).__name__}.")
        if array.dtype != np.float32 or array.shape != spec.shape or not array.flags.c_contiguous:
            layout = "dense" if array.flags.c_contiguous else "not dense"
            raise InputError(
                f"expected float32 {list(spec.shape)}, dense, as '{name}' in {what}, got {array.dtype} "
                f"{list(array.shape)}, {layout}."
            )
        if not array.flags.writeable:  # some libraries wrap no read-only memory, not even as an input
            raise InputError(
                f"expected an array that can be written as '{name}' in {what}, got a read-only one. Copy it."
            )


def run_repeatedly(engine: Engine, inputs: Mapping[str, FloatArray], count: int) -> Iterator[int]:
    """Run an engine, and give the number of each run when it is done, from 0.

    Raises:
        InputError: fewer than two runs, of which the first is not counted.
    """
    if count < 2:
        raise InputError(f"expected 1 or more runs, got {count - 1}.")
    outputs = {name: np.empty(spec.with_batch(1), np.float32) for name, spec in engine.outputs.items()}
    for index in range(count):
        engine.run(inputs, outputs)
        yield index

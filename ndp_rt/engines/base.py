"""What an engine and a backend are, whichever library runs them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError
from ndp_rt.program.tensors import TensorSpec

FloatArray = NDArray[np.float32]

# Traits (`BuildOptions.traits`) that let an engine be used elsewhere than where it was built.
VERSION_COMPATIBLE, HARDWARE_COMPATIBLE = "version-compatible", "hardware-compatible"


@dataclass(frozen=True, kw_only=True)
class BackendStatus:
    """What was found of a backend: its version and devices, or what to do to get it."""

    version: str | None
    devices: tuple[str, ...] = ()
    remedy: str | None = None  # an install command; None where nothing is missing


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an engine for a GPU is built; backends for the CPU take the defaults alone."""

    workspace_bytes: int | None = None  # scratch memory that a layer may take; None: the backend's limit
    timing_cache: str | None = None  # a file; None: one in the engine cache, or none if it is built past that
    version_compatible: bool = False  # to be loaded by later versions of the backend too
    hardware_compatible: bool = False  # to be loaded by other GPUs too, from Ampere on
    strip: bool = False  # leave the weights in the ONNX stages, where loading reads them
    onnx_stages: str | None = None  # a folder of typed stages (`ndp_rt.engines.stage_files`); None: made for the build

    def __post_init__(self) -> None:
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise InputError(f"workspace_bytes is {self.workspace_bytes}; 1 or more, or None, is taken.")
        if self.strip and self.onnx_stages is None:
            raise InputError(
                "strip leaves the weights in the ONNX stages, and a folder that stays is taken for them: give "
                "onnx_stages (--onnx-stages DIR, which ndp-rt export-stages writes)."
            )

    @property
    def traits(self) -> tuple[str, ...]:
        """What makes another engine of the same stage; the rest changes only how long the build takes."""
        named = {
            VERSION_COMPATIBLE: self.version_compatible,
            HARDWARE_COMPATIBLE: self.hardware_compatible,
            "strip": self.strip,
            f"workspace={self.workspace_bytes}": self.workspace_bytes is not None,
        }
        return tuple(name for name, is_set in named.items() if is_set)

    def to_words(self) -> list[str]:
        """Return the arguments of `ndp-rt build-engine` that say the same."""
        switches = {
            "--version-compatible": self.version_compatible,
            "--hardware-compatible": self.hardware_compatible,
            "--strip": self.strip,
        }
        values = {
            "--workspace": self.workspace_bytes,
            "--timing-cache": self.timing_cache,
            "--onnx-stages": self.onnx_stages,
        }
        words = [name for name, is_set in switches.items() if is_set]
        return words + [word for name, value in values.items() if value is not None for word in (name, str(value))]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What one engine is compiled for; `threads` None lets the backend choose."""

    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None
    winograd: bool = True  # large 3 x 3 convolutions by Winograd's algorithm, where the backend has it
    build: BuildOptions = BuildOptions()
    device_index: int = 0  # which GPU; the caller has made it the thread's current one
    tell: Callable[[str], None] = lambda line: None  # called with a line of text as a long build goes on

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}; 1 or more is taken.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}; 1 or more, or None for the backend's choice, is taken.")


class Engine(Protocol):
    """One ONNX stage compiled for one backend, device, precision and batch size.

    One call at a time: `run` may be called from any thread, but not from two at once. The GIL is free while it runs.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that `run` reads; the batch axis is the engine's own batch."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """The tensors that `run` writes."""
        ...

    def run(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> None:
        """Compute `outputs` from `inputs`: float32, C-contiguous, writeable, owned by the caller.

        The arrays of the last call stay bound: passing the same objects again costs no copy and no allocation.

        Raises:
            InputError: a tensor is missing or read-only, or its shape, type or layout differs.
            EngineError: the backend failed.
            ClosedError: after close().
        """
        ...

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        """Return, for each layer type, how many layers compute in which precision, as the backend reports it."""
        ...

    def close(self) -> None:
        """Free the engine; twice is allowed."""
        ...


class BoundRun(Protocol):
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
        """Tell whether it was started and has not ended; the arrays are the engine's until then."""
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


@runtime_checkable
class OverlappingEngine(Engine, Protocol):
    """An engine that also takes calls beside each other."""

    @property
    def stream_count(self) -> int:
        """How many calls compute at once if they are not bound to run alone, each on its share of the threads."""
        ...

    def bind(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray], *, is_alone: bool) -> BoundRun:
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
        ...


class AnyBackend(Protocol):
    """What every backend offers, before its engines differ: those of `Backend` run on the host, others on a GPU."""

    @property
    def name(self) -> str: ...

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that it offers on this kind of device."""
        ...

    def find(self) -> BackendStatus:
        """Look for the backend without importing it; never raises."""
        ...

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        """Compile a stage into files in the folder `artifact`, which is there and empty; return notes to store.

        Args:
            onnx_path: the bundle's own file for the host, a typed one (`ndp_rt.graphs.typed`) for a GPU.

        Raises:
            MissingExtraError: the backend is not installed.
            DeviceError: it needs a GPU, and there is none or its driver is too old.
            EngineError: the backend refuses the model.
            InputError: a precision or an option that it does not offer.
        """
        ...

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        """Check what an engine says of its layers.

        Raises:
            EngineError: the arithmetic is not done in `precision`.
        """
        ...


class Backend(AnyBackend, Protocol):
    """What a backend's module offers whose engines run on the host."""

    def load(self, artifact: Path, options: EngineOptions) -> Engine:
        """Load what `compile` wrote; raises the same."""
        ...


class Profiler(Protocol):
    """What a backend also offers that can say where an engine's time goes; not every one does."""

    def profile(
        self, onnx_path: Path, options: EngineOptions, inputs: Mapping[str, FloatArray], runs: int
    ) -> dict[str, float]:
        """Compile a stage as `compile` does, but with clocks in it, run it, and return its layers' times.

        Args:
            onnx_path: as for `compile`.
            options: likewise.
            inputs: as for `Engine.run`, by name.
            runs: 1 or more, after one that is not counted.

        Returns:
            The least milliseconds of each layer over the runs, by the name that the backend gives it, in the order in
            which they run: whatever else the machine does can only slow a layer down. The clocks cost time too.

        Raises:
            MissingExtraError: the backend is not installed.
            EngineError: it refuses the model, or fails.
            InputError: options that it does not offer, inputs that the stage does not take, or no runs.
        """
        ...


def check_run_count(runs: int) -> None:
    """Check how often a profile is asked to run.

    Raises:
        InputError: not once.
    """
    if runs < 1:
        raise InputError(f"runs is {runs}; 1 or more is taken.")


def one_line(error: Exception) -> str:
    """Return a library's message, often several lines with its own source paths, as one line for ours."""
    return " ".join(str(error).split())


class BoundArrays:
    """The arrays that a backend holds pointers into, kept alive, and compared by identity at every call."""

    __slots__ = ("_pairs",)

    def __init__(
        self,
        inputs: Mapping[str, FloatArray],
        outputs: Mapping[str, FloatArray],
        input_specs: Mapping[str, TensorSpec],
        output_specs: Mapping[str, TensorSpec],
    ) -> None:
        self._pairs = (
            tuple((name, inputs[name]) for name in input_specs),
            tuple((name, outputs[name]) for name in output_specs),
        )

    def holds(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> bool:
        """Tell whether these are the very same array objects."""
        for pairs, arrays in zip(self._pairs, (inputs, outputs), strict=True):
            for name, array in pairs:
                if arrays.get(name) is not array:
                    return False
        return True


def check_arrays(what: str, arrays: Mapping[str, FloatArray], specs: Mapping[str, TensorSpec]) -> None:
    """Check arrays by name against an engine's tensors.

    Raises:
        InputError: one is missing or read-only, or its shape, type or layout differs.
    """
    for name, spec in specs.items():
        if name not in arrays:
            raise InputError(f"{what} are {', '.join(arrays) or 'none'}; the engine also takes '{name}'. Pass it.")
        array = arrays[name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"'{name}' in {what} is {type(array).__name__}; a float32 NumPy array is taken.")
        if array.dtype != np.float32 or array.shape != spec.shape or not array.flags.c_contiguous:
            layout = "dense" if array.flags.c_contiguous else "not dense"
            raise InputError(
                f"'{name}' in {what} is {array.dtype} {list(array.shape)}, {layout}; float32 {list(spec.shape)}, "
                "dense, is taken."
            )
        if not array.flags.writeable:  # OpenVINO wraps no read-only memory, not even as an input
            raise InputError(f"'{name}' in {what} is read-only; an array that can be written is taken. Copy it.")

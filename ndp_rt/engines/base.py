"""What an engine is, whichever backend runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.errors import InputError
from ndp_rt.specs import TensorSpec

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BackendStatus:
    """What was found of a backend: its version and devices, or what to do to get it."""

    version: str | None
    devices: tuple[str, ...] = ()
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What one engine is compiled for; `threads` None lets the backend choose."""

    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None

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
        """Compute `outputs` from `inputs`: float32, C-contiguous, of the shapes above, owned by the caller.

        Arrays seen before are bound already: passing the same ones again costs no copy and no allocation.

        Raises:
            InputError: a tensor is missing, or its shape, type or layout differs.
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


class Backend(Protocol):
    """What a backend's module offers."""

    @property
    def name(self) -> str: ...

    def find(self) -> BackendStatus:
        """Look for the backend without loading a model; never raises."""
        ...

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        """Compile onnx_path into the folder `artifact` (exists, empty); return notes worth storing (JSON values).

        Raises:
            MissingExtraError: the backend is not installed.
            EngineError: it does not offer the precision, or refuses the model.
        """
        ...

    def load(self, artifact: Path, options: EngineOptions) -> Engine:
        """Load what `compile` wrote."""
        ...

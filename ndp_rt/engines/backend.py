"""Backends: each makes engines of graphs with one library, and declares what it offers.

A backend is a subclass of `HostBackend` or `DeviceBackend`, and an instance of it that `ndp_rt.engines.registry` finds.
Its module imports neither the library nor NumPy until an engine is compiled or loaded.
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ndp_rt.devices import machine
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.graph import CapturedGraph, capture_graph
from ndp_rt.errors import InputError

if TYPE_CHECKING:  # what describes a backend needs no NumPy, so that a command's --help is quick
    from ndp_rt.engines.cache import EngineKey
    from ndp_rt.engines.engine import DeviceEngine, Engine, FloatArray

UNKNOWN = "unknown"


def absolute(text: str) -> str:
    """Return a path as an absolute one: the process that builds may work in another folder."""
    return str(Path(text).absolute())


def option(flag: str, help_text: str, *, parse: Callable[[str], Any] = str, metavar: str | None = None) -> Any:
    """Return a field of a `BuildOptions` that is also an argument of `ndp-rt build-engine`.

    Args:
        flag: such as "--workspace".
        help_text: for --help.
        parse: makes the field's value of the argument's text; raises argparse.ArgumentTypeError.
        metavar: stands for the value in --help; None: the argument is a switch, and the field a bool.
    """
    metadata = {"flag": flag, "help": help_text, "parse": parse, "metavar": metavar}
    return dataclasses.field(default=False if metavar is None else None, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of building engines from typed stages; a backend with more options declares a subclass.

    Values are text, numbers and bools alone, since they travel to the building process as JSON.
    """

    onnx_stages: str | None = option(
        "--onnx-stages", "what export-stages wrote; default: made for the build", parse=absolute, metavar="DIR"
    )

    @property
    def traits(self) -> tuple[str, ...]:
        """Names of the options that make another engine of the same stage; the rest changes only how it is built."""
        return ()

    @property
    def device_facts(self) -> Mapping[str, Any] | None:
        """Fields of an engine's key that tell which devices it is for; None: this machine's, see `describe_device`."""
        return None

    def to_words(self) -> list[str]:
        """Return the arguments of `ndp-rt build-engine` that say the same."""
        words = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is True:
                words.append(field.metadata["flag"])
            elif value is not None and value is not False:
                words += [field.metadata["flag"], str(value)]
        return words


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options that one engine is compiled and loaded with."""

    precision: str = "fp32"
    batch: int = 1
    threads: int | None = None  # of a CPU; None: the backend chooses
    rewrites: bool = True  # whether the backend may replace parts of the graph by equal ones that are faster
    build: BuildOptions | None = None  # None: the backend's defaults
    device_index: int = 0  # which GPU; the caller has made it the thread's current one
    tell: Callable[[str], None] = lambda line: None  # called with a line of text as a long build goes on

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"expected a batch of 1 or more, got {self.batch}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"expected 1 or more threads, or None for the backend's choice, got {self.threads}.")


@dataclass(frozen=True, kw_only=True)
class BackendStatus:
    """A backend's version and devices on this machine, or the command that installs it."""

    version: str | None
    devices: tuple[str, ...] = ()
    remedy: str | None = None  # an install command; None where nothing is missing


def find_distribution(names: Sequence[str]) -> tuple[str, str] | None:
    """Return name and version of the first package that is installed, without importing it; None if none is."""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return name, importlib.metadata.version(name)
    return None


class Backend(ABC):
    """The part of a backend that is the same for hosts and GPUs."""

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]]  # the device strings that it takes, such as "cpu", or "cuda" and "cuda:N"
    order: ClassVar[int] = 100  # of a device's backends, the one with the smallest that is installed is the default
    precisions: ClassVar[tuple[str, ...]]
    build_options: ClassVar[type[BuildOptions] | None] = None  # None: it has none
    distributions: ClassVar[tuple[str, ...]] = ()  # the packages that it may be installed as
    remedy: ClassVar[str] = ""  # a command that installs it
    is_portable: ClassVar[bool] = False  # whether engines may be for devices of other machines

    def find(self) -> BackendStatus:
        """Look for the backend without importing it; never raises."""
        found = find_distribution(self.distributions)
        if found is None:
            return BackendStatus(version=None, remedy=self.remedy)
        return BackendStatus(version=found[1], devices=self.find_devices())

    @abstractmethod
    def find_devices(self) -> tuple[str, ...]:
        """Return the names of the devices here that it can use."""

    @abstractmethod
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

    @abstractmethod
    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        """Check what an engine says of its layers.

        Raises:
            EngineError: the arithmetic is not done in `precision`.
        """

    @abstractmethod
    def describe_device(self, index: int) -> Mapping[str, Any]:
        """Return the fields of an engine's key that tell which device it is for.

        Raises:
            DeviceError: there is no such device.
        """

    def check_offered(self, precision: str) -> None:
        """Check that a precision is one of `precisions`; raises InputError."""
        if precision not in self.precisions:
            raise InputError(
                f"expected precision {' or '.join(self.precisions)} for backend {self.name}, got '{precision}'. Choose "
                "another precision or backend (ndp-rt doctor lists them)."
            )

    def check_machine(self, precision: str) -> None:
        """Check that this machine has what one of `precisions` needs.

        Raises:
            InputError: it has not; the message says what is missing.
        """
        return

    def choose_build(self, build: BuildOptions | None, key: "EngineKey", engines_dir: Path) -> BuildOptions | None:
        """Return the options that an engine is built with; may add files kept beside the engines."""
        return build

    def runs_here(self, options: EngineOptions) -> bool:
        """Tell whether this machine can load what `compile` makes with these options; else it is checked where it can.

        Then what `compile` returns holds the engine's `precision_by_layer_type`.
        """
        return True

    def find_free_fields(self, made: "EngineKey", wanted: "EngineKey") -> frozenset[str]:
        """Return the fields in which an engine's key may differ from the one that is wanted, and the engine still fits.

        Args:
            made: of an engine in the cache.
            wanted: for the same stage, precision and batch.
        """
        return frozenset()


class HostBackend(Backend):
    """A backend whose engines run on the host."""

    devices = ("cpu",)

    def find_devices(self) -> tuple[str, ...]:
        return ("CPU",)

    @abstractmethod
    def load(self, artifact: Path, options: EngineOptions) -> "Engine":
        """Load what `compile` wrote; raises the same."""

    def describe_device(self, index: int) -> Mapping[str, Any]:
        cpu = machine.find_cpu()
        return {"device": "cpu", "device_model": cpu.model_name, "isa_flags": cpu.isa_flags}


class LibraryBackend(HostBackend):
    """A backend for the host whose library, and the module that uses it, are imported on first use."""

    engine_module: ClassVar[str]  # has compile_model, load_model and profile, which take what the methods here take

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        notes: Mapping[str, Any] = self._call("compile_model", options, onnx_path, artifact, options)
        return notes

    def load(self, artifact: Path, options: EngineOptions) -> "Engine":
        engine: Engine = self._call("load_model", options, artifact, options)
        return engine

    def profile(
        self, onnx_path: Path, options: EngineOptions, inputs: Mapping[str, "FloatArray"], runs: int
    ) -> dict[str, float]:
        """See `Profiler`."""
        times: dict[str, float] = self._call("profile", options, onnx_path, options, inputs, runs)
        return times

    def _call(self, name: str, options: EngineOptions, *arguments: Any) -> Any:
        self.check_offered(options.precision)
        return getattr(importlib.import_module(self.engine_module), name)(*arguments)


class DeviceBackend(Backend):
    """A backend whose engines run on a GPU."""

    devices = ("cuda", "cuda:N")
    build_options = BuildOptions

    def find_devices(self) -> tuple[str, ...]:
        return tuple(gpu.name for gpu in machine.find_gpus())

    @abstractmethod
    def load(self, artifact: Path, options: EngineOptions) -> "DeviceEngine":
        """Load what `compile` wrote onto the thread's current GPU; raises the same."""

    def describe_device(self, index: int) -> Mapping[str, Any]:
        gpu = machine.find_gpu(index)
        return {
            "device": "cuda",
            "device_model": gpu.name,
            "compute_capability": gpu.compute_capability or UNKNOWN,
            "driver_version": machine.find_driver_version() or UNKNOWN,
        }

    def keep(self, engines: Iterable["DeviceEngine"]) -> None:
        """Store what the first runs of engines of its own made, so that the next start is quicker; all are idle."""
        return

    def capture(self, device: CudaDevice, stream: Any, enqueue: Callable[[], None]) -> CapturedGraph:
        """Capture a stream's work, as `capture_graph` does; a backend whose allocator has to know of it overrides this.

        What `enqueue` does may run twice.
        """
        return capture_graph(device, stream, enqueue)


@runtime_checkable
class Profiler(Protocol):
    """A backend that can also tell the time of each layer; not every one does."""

    def profile(
        self, onnx_path: Path, options: EngineOptions, inputs: Mapping[str, "FloatArray"], runs: int
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


def describe_counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return counts of layers by type and precision as words."""
    words = [f"{kind} {count} x {name}" for kind, found in counts.items() for name, count in found.items()]
    return ", ".join(words) or "no layers that multiply"

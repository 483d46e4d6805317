"""Compiles and runs graphs by OpenVINO. Its precision is always set: left alone it picks bf16 where the CPU has it."""

import contextlib
import ctypes
import importlib
import importlib.util
import io
import os
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ndp_rt.arrays import FloatArray
from ndp_rt.devices.host_process import check_cores_listed, check_only_copy, explain_failure
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.openvino.backend import PRECISIONS, REMEDY
from ndp_rt.engines.backends.openvino.rewrites import enlarge_by_products, keep_contrast
from ndp_rt.engines.engine import OverlappingEngine, one_line, run_repeatedly
from ndp_rt.errors import ClosedError, EngineError, HostError, MissingExtraError, NdpRtError, needs_extra
from ndp_rt.graphs.winograd_rule import choose_points, has_large_convolutions
from ndp_rt.program.tensors import TensorSpec

BLOB_FILE = "model.blob"
TELEMETRY = "openvino_telemetry"
# Of the calls that compute beside each other: each has the network's buffers of its own (edge 25 to 45 MB).
MOST_STREAMS = 8
SAMPLE = 1234.5  # has a decimal point, and digits that could be grouped
LEAST_DESCRIPTOR = 3  # below are the standard streams


def _import_openvino() -> Any:
    """Return the module openvino, imported without its telemetry.

    openvino 2026.4 reports every import over the network, from a process that it forks while threads run, and keeps
    an identifier in ~/intel. An inspector in a factory reports nothing; without the package openvino takes its stub.
    """
    if "openvino" in sys.modules or TELEMETRY in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # importing it then is an ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]


def _core() -> Any:
    """Return OpenVINO's core for reading, compiling or importing, which write numbers as text and read them back.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        HostError: something in the process is in its way, such as a global C++ locale in which numbers look otherwise.
    """
    openvino = _load_openvino()
    written = openvino.OVAny(SAMPLE).astype(str)
    if written != str(SAMPLE):
        raise HostError(
            f"C++ locale: expected numbers to be written as {SAMPLE}, got '{written}', because this program has called "
            "std::locale::global. Call std::locale::global(std::locale::classic()) while inspectors are opened and "
            "references set, and imbue your own streams with your locale."
        )
    return _make_core()


@lru_cache(maxsize=1)
def _load_openvino() -> Any:
    found = importlib.util.find_spec("openvino")
    if found is None or found.origin is None:
        raise MissingExtraError(f"OpenVINO is not installed. Install it with: {REMEDY}")
    libraries = Path(found.origin).parent / "libs"
    check_cores_listed()
    check_only_copy("libopenvino.so", libraries)
    try:
        openvino = _import_openvino()
    except ImportError as error:
        raise explain_failure(str(error)) or MissingExtraError(
            f"OpenVINO cannot be loaded ({one_line(error)}). Install it again with: {REMEDY} --force-reinstall"
        ) from error
    # TBB (2021 to 2023) loads these with RTLD_DEEPBIND. Past an allocator that the host has preloaded, they would free
    # with the C library's what was allocated with the other.
    for path in (*libraries.glob("libhwloc.so*"), *libraries.glob("libtbbbind*.so*")):
        with contextlib.suppress(OSError):  # then TBB does without, as it would have done
            ctypes.CDLL(str(path))
    return openvino


@lru_cache(maxsize=1)
def _make_core() -> Any:
    return _load_openvino().Core()


class OpenVinoEngine(OverlappingEngine):
    """A compiled model with an infer request; see `ndp_rt.engines.engine.OverlappingEngine`."""

    def __init__(self, compiled: Any, blob: "BlobFile | None" = None) -> None:
        """Take the model.

        Args:
            compiled: for one stream.
            blob: what it was loaded from, to load it for several; None: calls never compute beside each other.
        """
        super().__init__(
            *({_find_name(port): _spec_of(port) for port in ports} for ports in (compiled.inputs, compiled.outputs))
        )
        self._compiled = compiled
        self._shared: Any = None  # the model for several streams, from the first that needs it
        self._blob = blob
        self._request = compiled.create_infer_request()
        self._calls: weakref.WeakSet[OpenVinoCall] = weakref.WeakSet()
        threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self.stream_count = 1 if blob is None else max(1, min(threads, MOST_STREAMS))

    @property
    def is_open(self) -> bool:
        return self._request is not None

    def _point(self, arrays: Mapping[str, FloatArray]) -> None:
        _point(self._request, arrays)

    def _compute(self) -> None:
        request = self._request
        try:
            request.start_async()  # with wait(): half the overhead of infer() (gpu.md); both release the GIL
            request.wait()
        except RuntimeError as error:
            raise _failed(error) from error

    def bind(
        self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray], *, is_alone: bool
    ) -> "OpenVinoCall":
        self._check_open()
        arrays = self._check_arrays(inputs, outputs)
        if is_alone or self.stream_count == 1:
            compiled = self._compiled
        else:
            if self._shared is None:
                assert self._blob is not None  # without it there is one stream
                self._shared = self._blob.load(self.stream_count)
            compiled = self._shared
        request = compiled.create_infer_request()
        _point(request, arrays)
        call = OpenVinoCall(self, request, arrays)
        self._calls.add(call)
        return call

    def layer_times_ms(self) -> dict[str, float]:
        """Return the time of each layer in the last call, in order, 0 for those that are part of another.

        For a model compiled with PERF_COUNT.
        """
        self._check_open()
        times: dict[str, float] = {}
        for layer in self._request.profiling_info:
            times[layer.node_name] = times.get(layer.node_name, 0.0) + layer.real_time.total_seconds() * 1e3
        return times

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        self._check_open()
        counts: dict[str, Counter[str]] = {}
        for layer in self._compiled.get_runtime_model().get_ops():
            info = layer.get_rt_info()
            kind, precision = (str(info[key].astype(str)) for key in ("layerType", "runtimePrecision"))
            counts.setdefault(kind, Counter())[precision] += 1
        return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}

    def close(self) -> None:
        self._request = self._compiled = self._shared = self._bound = None
        for call in self._calls:
            call.free()
        if self._blob is not None:
            self._blob.close()
            self._blob = None


class OpenVinoCall:
    """An infer request with arrays of its own; see `ndp_rt.engines.engine.Call`."""

    def __init__(self, engine: OpenVinoEngine, request: Any, arrays: Mapping[str, FloatArray]) -> None:
        self._engine = engine
        self._request = request
        self._arrays = arrays  # the request holds pointers into them
        self._is_started = False

    def __del__(self) -> None:
        if self._is_started:  # the arrays go with it, so nothing may write to them any more
            with contextlib.suppress(ClosedError, EngineError):
                self.wait()

    @property
    def is_open(self) -> bool:
        return self._engine._request is not None

    @property
    def is_computing(self) -> bool:
        request = self._request  # which a thread that waits may let go of meanwhile
        if request is None or not self._is_started:
            return False
        try:
            return not request.wait_for(0)
        except RuntimeError:  # it has ended, and badly: wait() says so
            return False

    def start(self) -> None:
        if self._engine._request is None:
            raise ClosedError("the engine is closed. Load it again.")
        was_started, self._is_started = self._is_started, True  # before: an interrupt in between must not hide it
        try:
            self._request.start_async()
        except RuntimeError as error:
            self._is_started = was_started
            raise _failed(error) from error

    def wait(self) -> float:
        request = self._request  # which another thread that waits may let go of meanwhile
        if request is None:
            raise ClosedError("the engine is closed. Load it again.")
        try:
            request.wait()
            return float(request.latency)
        except RuntimeError as error:
            raise _failed(error) from error
        finally:
            self._is_started = False
            if self._engine._request is None:
                self.free()

    def free(self) -> None:
        """Let go of the model, which is closed, unless there is something to wait for: then `wait` does it."""
        if not self._is_started:
            self._request = None


class BlobFile:
    """A compiled model's file, held open: it may be deleted meanwhile, as that of a changed reference is."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """Open the file.

        Raises:
            EngineError: it cannot be read.
        """
        self._path = path
        self._config = config
        try:
            self._descriptor = _open_above_streams(path)
        except OSError as error:
            raise EngineError(f"{path}: {error.strerror}. Build with --rebuild.") from error
        self.close: Callable[[], object] = weakref.finalize(self, os.close, self._descriptor)  # once, however called

    def load(self, stream_count: int) -> Any:
        """Return the model, loaded for `stream_count` calls at once.

        Raises:
            EngineError: OpenVINO refuses the file.
            HostError: as `_core`.
        """
        core = _core()
        try:
            return core.import_model(self._read(), "CPU", {**self._config, "NUM_STREAMS": str(stream_count)})
        except (OSError, RuntimeError) as error:
            raise _refuse(self._path, error) from error

    def _read(self) -> bytes:
        if sys.platform == "win32":  # it has no pread, and deletes no file that is open
            return self._path.read_bytes()
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)


def _open_above_streams(path: Path) -> int:
    """Open a file as descriptor 3 or above: where a host has closed its streams, a lower one would become a stream."""
    low: list[int] = []
    try:
        while (descriptor := os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))) < LEAST_DESCRIPTOR:
            low.append(descriptor)
        return descriptor
    finally:
        for one in low:
            os.close(one)


def compile_model(onnx_path: Path, artifact: Path, options: EngineOptions) -> dict[str, Any]:
    """See `ndp_rt.engines.backend.Backend.compile`."""
    try:
        blob = _compile(onnx_path, options).export_model()
    except HostError:
        raise
    except RuntimeError as error:
        raise _refuse(onnx_path, error) from error
    content = blob.getvalue() if isinstance(blob, io.BytesIO) else bytes(blob)
    (artifact / BLOB_FILE).write_bytes(content)
    return {"artifact_bytes": len(content)}


def load_model(artifact: Path, options: EngineOptions) -> OpenVinoEngine:
    """See `ndp_rt.engines.backend.HostBackend.load`."""
    blob = BlobFile(artifact / BLOB_FILE, _config(options))
    return OpenVinoEngine(blob.load(1), blob)


def open_graph(onnx_path: Path, options: EngineOptions, *, is_profiled: bool = False) -> OpenVinoEngine:
    """Compile a graph and keep it in memory alone, in half the time: for trials.

    Raises:
        EngineError: OpenVINO refuses the graph.
        HostError: as `_core`.
    """
    try:
        return OpenVinoEngine(_compile(onnx_path, options, {"PERF_COUNT": is_profiled}))
    except HostError:
        raise
    except RuntimeError as error:
        raise _refuse(onnx_path, error) from error


def profile(onnx_path: Path, options: EngineOptions, inputs: Mapping[str, FloatArray], runs: int) -> dict[str, float]:
    """See `ndp_rt.engines.backend.Profiler`. Layers have the name of a node that they were made of, or a new one."""
    engine = open_graph(onnx_path, options, is_profiled=True)
    found: dict[str, list[float]] = {}
    try:
        for run in run_repeatedly(engine, inputs, runs + 1):
            for name, value in engine.layer_times_ms().items() if run else ():  # the first call is slower
                found.setdefault(name, []).append(value)
    finally:
        engine.close()
    return {name: min(values) for name, values in found.items()}


def _config(options: EngineOptions) -> dict[str, Any]:
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[options.precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # Pinned, engines sit on the same first cores, whoever else is there while others are free.
        "ENABLE_CPU_PINNING": False,
    }
    if options.threads is not None:
        config["INFERENCE_NUM_THREADS"] = options.threads
    return config


def _compile(onnx_path: Path, options: EngineOptions, more: Mapping[str, Any] | None = None) -> Any:
    """Read a stage, fix its batch and compile it; OpenVINO's own RuntimeError goes through."""
    config = _config(options)
    model = _read_model(onnx_path, options.batch)
    points = choose_points(options.precision, find_cpu().isa_flags) if options.rewrites else None
    if points is not None and has_large_convolutions(model, points):
        with needs_extra("compiling a graph with large convolutions", "graphs"):
            from ndp_rt.graphs.winograd import rewrite_file
        rewritten = rewrite_file(onnx_path, points)
        model = model if rewritten is None else _read_model(rewritten, options.batch)
    enlarge_by_products(model)
    if PRECISIONS[options.precision] == "bf16":
        model = keep_contrast(_core(), model)
    return _core().compile_model(model, "CPU", {**config, **(more or {})})


def _read_model(source: Path | bytes, batch: int) -> Any:
    model = _core().read_model(source)
    model.reshape({_find_name(port): [batch, *_fixed_tail(port)] for port in model.inputs})
    return model


def _point(request: Any, arrays: Mapping[str, FloatArray]) -> None:
    """Let a request read and write the caller's own memory."""
    import openvino

    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))


def _failed(error: RuntimeError) -> NdpRtError:
    return explain_failure(str(error)) or EngineError(
        f"OpenVINO failed to run: {one_line(error)} Build with --rebuild."
    )


def _refuse(path: Path, error: OSError | RuntimeError) -> NdpRtError:
    remedy = " Export the bundle again." if path.suffix == ".onnx" else ""
    return explain_failure(str(error)) or EngineError(f"OpenVINO refuses {path}: {one_line(error)}{remedy}")


def _fixed_tail(port: Any) -> list[int]:
    """Return a model input's dimensions after the batch axis, which the bundle's format fixes."""
    return [dimension.get_length() for dimension in list(port.partial_shape)[1:]]


def _find_name(port: Any) -> str:
    """Return the graph's own name of an input or output, which may also have those of operators that were fused."""
    own: str = port.node.friendly_name.partition("/sink_port")[0]
    return own if own in port.names else str(port.any_name)


def _spec_of(port: Any) -> TensorSpec:
    return TensorSpec(name=_find_name(port), shape=tuple(int(size) for size in port.shape))

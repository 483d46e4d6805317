"""Optimises and runs graphs by ONNX Runtime, in fp32 only."""

import ctypes
import functools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ndp_rt.arrays import FloatArray
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.onnxruntime.backend import REMEDY
from ndp_rt.engines.engine import Engine, one_line, run_repeatedly
from ndp_rt.errors import EngineError, MissingExtraError, StorageError
from ndp_rt.files import make_temporary_folder
from ndp_rt.program.tensors import TensorSpec

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.weights"
FULL_DISK_BYTES = 2**20
NODE_TIME = "_kernel_time"  # ends the name of a node's event in a profile
BATCH_AXIS = "n"  # the batch axis's name in every bundle


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"ONNX Runtime cannot be imported ({error}). Install it with: {REMEDY}") from error
    _let_children_end()
    return onnxruntime


@functools.cache
def _let_children_end() -> None:
    """Have children that are forked from now on end by `sys.exit` too, where the C library is glibc.

    Up to 1.32, ONNX Runtime destroys a lock at exit on which a thread of the parent sleeps, and so a child waits for
    ever. It ends here before that, after Python's own end, with its exit code and with C's streams written.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is not None and hasattr(library, "on_exit"):

        def end_early() -> None:  # what is registered last is called first
            library.on_exit(library._exit, None)
            library.__cxa_atexit(library.fflush, None, None)

        os.register_at_fork(after_in_child=end_early)


class OnnxRuntimeEngine(Engine):
    """One session with one set of bound arrays; see `ndp_rt.engines.engine.Engine`."""

    def __init__(self, session: Any, model_path: Path) -> None:
        nodes = (session.get_inputs(), session.get_outputs())
        super().__init__(
            *({one.name: TensorSpec(name=one.name, shape=tuple(one.shape)) for one in side} for side in nodes)
        )
        self._session = session
        self._model_path = model_path
        self._binding: Any = None

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def _point(self, arrays: Mapping[str, FloatArray]) -> None:
        self._binding = self._session.io_binding()
        for name, array in arrays.items():
            bind = self._binding.bind_input if name in self.inputs else self._binding.bind_output
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _compute(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise EngineError(f"ONNX Runtime failed to run: {one_line(error)} Build with --rebuild.") from error

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        self._check_open()
        return count_precisions(self._model_path)

    def close(self) -> None:
        self._session = self._binding = self._bound = None


def compile_model(onnx_path: Path, artifact: Path, options: EngineOptions) -> dict[str, Any]:
    """See `ndp_rt.engines.backend.Backend.compile`."""
    runtime = _import()
    settings = _settings(runtime, options)
    settings.add_free_dimension_override_by_name(BATCH_AXIS, options.batch)
    settings.optimized_model_filepath = str(artifact / MODEL_FILE)
    # Otherwise weights that no optimisation touched would stay references into the bundle's own file.
    settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS_FILE)
    settings.log_severity_level = 3  # it warns that the file suits this CPU alone; the cache's key says so
    try:
        _open_session(runtime, onnx_path, settings)
    except EngineError as error:
        if shutil.disk_usage(artifact).free < FULL_DISK_BYTES:  # which its own message does not say
            raise StorageError(f"{artifact}: no space is left for the engine. Free some space there.") from error
        raise
    return {"artifact_bytes": sum(path.stat().st_size for path in artifact.iterdir())}


def load_model(artifact: Path, options: EngineOptions) -> OnnxRuntimeEngine:
    """See `ndp_rt.engines.backend.HostBackend.load`."""
    runtime = _import()
    settings = _settings(runtime, options)
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # compile() did it
    return OnnxRuntimeEngine(_open_session(runtime, artifact / MODEL_FILE, settings), artifact / MODEL_FILE)


def open_graph(onnx_path: Path, options: EngineOptions) -> OnnxRuntimeEngine:
    """Optimise a graph and keep it in memory alone, a third of the time of compiling and loading: to run it once.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
        MissingExtraError: it is not installed.
    """
    runtime = _import()
    settings = _settings(runtime, options)
    settings.add_free_dimension_override_by_name(BATCH_AXIS, options.batch)
    return OnnxRuntimeEngine(_open_session(runtime, onnx_path, settings), onnx_path)


def profile(onnx_path: Path, options: EngineOptions, inputs: Mapping[str, FloatArray], runs: int) -> dict[str, float]:
    """See `ndp_rt.engines.backend.Profiler`. Layers have the name of a node, or of what it makes, or a new one."""
    runtime = _import()
    settings = _settings(runtime, options)
    settings.add_free_dimension_override_by_name(BATCH_AXIS, options.batch)
    settings.enable_profiling = True
    with make_temporary_folder("profile") as folder:
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = _open_session(runtime, onnx_path, settings)
        engine = OnnxRuntimeEngine(session, onnx_path)
        try:
            for _ in run_repeatedly(engine, inputs, runs + 1):  # the first is slower, and not counted
                pass
        finally:
            written = Path(session.end_profiling())
            engine.close()
        return read_profile(json.loads(written.read_text(encoding="utf-8")))


def _settings(runtime: Any, options: EngineOptions) -> Any:
    settings = runtime.SessionOptions()
    settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.intra_op_num_threads = options.threads or 0  # 0: its own choice, the physical cores
    settings.inter_op_num_threads = 1
    return settings


def _open_session(runtime: Any, path: Path, settings: Any) -> Any:
    try:
        return runtime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise EngineError(f"ONNX Runtime refuses {path}: {one_line(error)}") from error


def read_profile(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the least milliseconds of each node over all runs but the first, in the order in which they run.

    Args:
        events: of ONNX Runtime's profile; a node without a name is called by its operator and number.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for event in events:
        name = str(event["name"])
        if event.get("cat") == "Node" and name.endswith(NODE_TIME):
            arguments = event["args"]
            number = str(arguments.get("node_index", ""))
            label = name[: -len(NODE_TIME)] or f"{arguments['op_name']}#{number}"
            found.setdefault((label, number), []).append(event["dur"] * 1e-3)  # from microseconds
    times: dict[str, float] = {}
    for (label, _), values in found.items():
        times[label] = times.get(label, 0.0) + min(values[1:] or values)
    return times


def count_precisions(model_path: Path) -> dict[str, dict[str, int]]:
    """Count nodes by type and by the float type of their tensors in an optimised model.

    A tensor whose type the file does not state takes that of its producer's inputs: no operator that ONNX Runtime
    inserts changes the float type, except Cast, which states its own.
    """
    import onnx

    graph = onnx.load(str(model_path), load_external_data=False).graph
    types = dict(_stated_types(onnx, graph))
    names = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.FLOAT16: "f16", onnx.TensorProto.BFLOAT16: "bf16"}
    counts: dict[str, Counter[str]] = {}
    for node in graph.node:
        target = next((a.i for a in node.attribute if node.op_type == "Cast" and a.name == "to"), None)
        floats = [types[name] for name in (*node.input, *node.output) if types.get(name) in names]
        kind = target if target is not None else (floats[0] if floats else None)
        for name in node.output:
            if kind is not None:
                types.setdefault(name, kind)
        label = names.get(kind, "other") if kind is not None else "other"
        counts.setdefault(node.op_type, Counter())[label] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}


def _stated_types(onnx: Any, graph: Any) -> Iterator[tuple[str, int]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, value.type.tensor_type.elem_type

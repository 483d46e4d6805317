"""Engines by OpenVINO on the CPU. Its precision is always set: left alone it picks bf16 where the CPU has it."""

import importlib
import importlib.metadata
import io
import sys
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.device import BF16_FLAGS, find_cpu
from ndp_rt.engines.base import (
    BackendStatus,
    BoundArrays,
    EngineOptions,
    FloatArray,
    check_arrays,
    check_run_count,
    one_line,
)
from ndp_rt.errors import ClosedError, EngineError, InputError, MissingExtraError
from ndp_rt.specs import TensorSpec

NAME = "openvino"
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
BLOB_FILE = "model.blob"
# Layer types that do the arithmetic; the others move, reshape or convert.
COMPUTE_LAYERS = frozenset({"Convolution", "Deconvolution", "MatMul", "FullyConnected", "GroupConvolution"})
REMEDY = "pip install openvino"
TELEMETRY = "openvino_telemetry"


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


@lru_cache(maxsize=1)
def _core() -> Any:
    try:
        openvino = _import_openvino()
    except ImportError as error:
        raise MissingExtraError(f"OpenVINO cannot be imported ({error}). Install it with: {REMEDY}") from error
    return openvino.Core()


class OpenVinoEngine:
    """One compiled model with one infer request; see `ndp_rt.engines.base.Engine`."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._bound: BoundArrays | None = None
        self._inputs = {port.any_name: _spec_of(port) for port in compiled.inputs}
        self._outputs = {port.any_name: _spec_of(port) for port in compiled.outputs}

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    def run(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> None:
        request = self._request
        if request is None:
            raise ClosedError("the engine is closed. Load it again.")
        if self._bound is None or not self._bound.holds(inputs, outputs):
            self._bind(inputs, outputs)
        try:
            request.start_async()  # with wait(): half the overhead of infer() (gpu.md); both release the GIL
            request.wait()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed to run: {one_line(error)} Build with --rebuild.") from error

    def _bind(self, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> None:
        """Let the request read and write the caller's own memory."""
        import openvino

        check_arrays("inputs", inputs, self._inputs)
        check_arrays("outputs", outputs, self._outputs)
        self._bound = None
        for name in self._inputs:
            self._request.set_tensor(name, openvino.Tensor(inputs[name], shared_memory=True))
        for name in self._outputs:
            self._request.set_tensor(name, openvino.Tensor(outputs[name], shared_memory=True))
        self._bound = BoundArrays(inputs, outputs, self._inputs, self._outputs)

    def layer_times_ms(self) -> dict[str, float]:
        """Return the time of each layer in the last call, in order, 0 for those that are part of another.

        For a model compiled with PERF_COUNT.
        """
        if self._request is None:
            raise ClosedError("the engine is closed. Load it again.")
        times: dict[str, float] = {}
        for layer in self._request.profiling_info:
            times[layer.node_name] = times.get(layer.node_name, 0.0) + layer.real_time.total_seconds() * 1e3
        return times

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        if self._compiled is None:
            raise ClosedError("the engine is closed. Load it again.")
        counts: dict[str, Counter[str]] = {}
        for layer in self._compiled.get_runtime_model().get_ops():
            info = layer.get_rt_info()
            kind, precision = (str(info[key].astype(str)) for key in ("layerType", "runtimePrecision"))
            counts.setdefault(kind, Counter())[precision] += 1
        return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}

    def close(self) -> None:
        self._request = self._compiled = self._bound = None


class OpenVinoBackend:
    """Compiles and loads engines of OpenVINO; see `ndp_rt.engines.base.Backend`."""

    name = NAME
    precisions = tuple(PRECISIONS)

    def find(self) -> BackendStatus:
        try:
            version = importlib.metadata.version("openvino")
        except importlib.metadata.PackageNotFoundError:
            return BackendStatus(version=None, remedy=REMEDY)
        return BackendStatus(version=version, devices=("CPU",))

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        try:
            blob = _compile_model(onnx_path, options).export_model()
        except RuntimeError as error:
            raise _refuse(onnx_path, error) from error
        content = blob.getvalue() if isinstance(blob, io.BytesIO) else bytes(blob)
        (artifact / BLOB_FILE).write_bytes(content)
        return {"artifact_bytes": len(content)}

    def load(self, artifact: Path, options: EngineOptions) -> OpenVinoEngine:
        config, core = _config(options), _core()
        try:
            return OpenVinoEngine(core.import_model((artifact / BLOB_FILE).read_bytes(), "CPU", config))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO refuses {artifact / BLOB_FILE}: {one_line(error)}") from error

    def profile(
        self, onnx_path: Path, options: EngineOptions, inputs: Mapping[str, FloatArray], runs: int
    ) -> dict[str, float]:
        """See `ndp_rt.engines.base.Profiler`. Layers bear the name of a node that they were made of, or a new one."""
        check_run_count(runs)
        try:
            engine = OpenVinoEngine(_compile_model(onnx_path, options, {"PERF_COUNT": True}))
        except RuntimeError as error:
            raise _refuse(onnx_path, error) from error
        outputs = {name: np.empty(spec.with_batch(options.batch), np.float32) for name, spec in engine.outputs.items()}
        found: dict[str, list[float]] = {}
        try:
            engine.run(inputs, outputs)  # the first call is slower
            for _ in range(runs):
                engine.run(inputs, outputs)
                for name, value in engine.layer_times_ms().items():
                    found.setdefault(name, []).append(value)
        finally:
            engine.close()
        return {name: min(values) for name, values in found.items()}

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        wanted = PRECISIONS[precision]
        compute = {kind: found for kind, found in counts.items() if kind in COMPUTE_LAYERS}
        if precision == "fp32":
            other = {kind: found for kind, found in compute.items() if set(found) != {wanted}}
            if other:
                raise EngineError(f"asked for fp32, OpenVINO computes {describe_counts(other)}. Report this machine.")
            return
        convolutions = counts.get("Convolution", {})
        # A few may stay in f32, where the processor's library has no bf16 form for their shape; not most of them.
        if 2 * convolutions.get(wanted, 0) <= sum(convolutions.values()):
            cpu = find_cpu()
            hint = "its flags name bf16, so report this" if cpu.has_bf16 else f"it has none of {', '.join(BF16_FLAGS)}"
            raise EngineError(
                f"asked for {precision}, OpenVINO computes {describe_counts(compute)} on {cpu.model_name}: {hint}. "
                "Build with --precision fp32."
            )


def describe_counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return counts of layers by type and precision as words."""
    words = [f"{kind} {count} x {name}" for kind, found in counts.items() for name, count in found.items()]
    return ", ".join(words) or "no layers that multiply"


def _config(options: EngineOptions) -> dict[str, Any]:
    if options.precision not in PRECISIONS:
        raise InputError(f"precision is '{options.precision}'; OpenVINO takes {' or '.join(PRECISIONS)} here.")
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[options.precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }
    if options.threads is not None:
        config["INFERENCE_NUM_THREADS"] = options.threads
        if options.threads < find_cpu().usable_core_count:
            # It pins threads from the first core on, so that two processes of one thread each would share one.
            config["ENABLE_CPU_PINNING"] = False
    return config


def _compile_model(onnx_path: Path, options: EngineOptions, more: Mapping[str, Any] | None = None) -> Any:
    """Read a stage, fix its batch and compile it; OpenVINO's own RuntimeError goes through."""
    config, core = _config(options), _core()
    model = core.read_model(onnx_path)
    model.reshape({port.any_name: [options.batch, *_fixed_tail(port)] for port in model.inputs})
    return core.compile_model(model, "CPU", {**config, **(more or {})})


def _refuse(onnx_path: Path, error: RuntimeError) -> EngineError:
    return EngineError(f"OpenVINO refuses {onnx_path}: {one_line(error)} Export the bundle again.")


def _fixed_tail(port: Any) -> list[int]:
    """Return a model input's dimensions after the batch axis, which the bundle's format fixes."""
    return [dimension.get_length() for dimension in list(port.partial_shape)[1:]]


def _spec_of(port: Any) -> TensorSpec:
    return TensorSpec(name=port.any_name, shape=tuple(int(size) for size in port.shape))

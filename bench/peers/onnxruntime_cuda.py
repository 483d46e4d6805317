"""ONNX Runtime's CUDA provider: the fused graph with everything bound to device memory, in a CUDA graph if it can."""

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from ndp_rt.bench.peers.arrays import ArrayRunner, Arrays, make_arrays
from ndp_rt.bench.peers.base import BundlePeer
from ndp_rt.bench.peers.fused_graph import make_fused_graph
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import ClosedError, EngineError, InputError
from ndp_rt.program.tensors import TensorSpec

REMEDY = "pip install onnxruntime-gpu (in place of onnxruntime)"
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
ELEMENTS = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class OnnxRuntimePeer(BundlePeer):
    """See `ndp_rt.bench.peers.base.Peer`."""

    name = "onnxruntime-cuda"
    precisions = ("fp32", "tf32", "fp16")

    def __init__(self, device: str = "cuda") -> None:
        """Choose "cuda", or "cpu" for tests."""
        self._device = device

    def find(self) -> str | None:
        for module, remedy in (("onnxruntime", REMEDY), ("onnx", "pip install onnx")):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: {remedy}."
        import onnxruntime

        if PROVIDERS[self._device] not in onnxruntime.get_available_providers():
            return f"ONNX Runtime {onnxruntime.__version__} has no {PROVIDERS[self._device]}: {REMEDY}."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> ArrayRunner:
        content = make_fused_graph(bundle, precision, batch).SerializeToString()
        if self._device == "cpu":
            return self._open(content, precision, has_graph=False)
        try:
            return self._open(content, precision, has_graph=True)
        except EngineError:  # some operator of the graph does not run on the device, or not in a capture
            return self._open(content, precision, has_graph=False)

    def _open(self, content: bytes, precision: str, *, has_graph: bool) -> ArrayRunner:
        arrays = make_arrays(self._device)
        engine = OnnxRuntimeEngine(content, arrays, allows_tf32=precision == "tf32", has_graph=has_graph)
        return ArrayRunner(engine, arrays, {"onnxruntime": find_version(), "cuda_graph": has_graph})


def find_version() -> str:
    """Return the version of the package that is imported as onnxruntime; several are."""
    names = importlib.metadata.packages_distributions().get("onnxruntime", ["onnxruntime"])
    return f"{names[0]} {importlib.metadata.version(names[0])}"


class OnnxRuntimeEngine:
    """A session with bound tensors; see `ndp_rt.engines.engine.DeviceEngine`."""

    held_bytes = 0  # ONNX Runtime does not say

    def __init__(self, content: bytes, arrays: Arrays, *, allows_tf32: bool, has_graph: bool) -> None:
        import onnxruntime

        self._device = arrays.device
        provider: Any = PROVIDERS[arrays.device]
        if arrays.device == "cuda":
            options = {
                "user_compute_stream": str(arrays.stream_pointer),
                "use_tf32": str(int(allows_tf32)),
                "enable_cuda_graph": str(int(has_graph)),
                "cudnn_conv_algo_search": "EXHAUSTIVE",
                "cudnn_conv_use_max_workspace": "1",
            }
            provider = (provider, options)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        self._options = onnxruntime.RunOptions()
        # The stream's owner waits for it, once.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(content, settings, providers=[provider])
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise EngineError(f"ONNX Runtime refuses the graph: {one_line(error)}") from error
        if self._session.get_providers()[0] != PROVIDERS[arrays.device]:  # it falls back to the CPU by itself
            raise EngineError(f"ONNX Runtime runs {self._session.get_providers()[0]} instead. See its log; {REMEDY}.")
        self._binding: Any = None
        self.inputs = {node.name: _describe(node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _describe(node) for node in self._session.get_outputs()}

    def bind(self, pointers: Mapping[str, int]) -> None:
        binding = self._open_session().io_binding()
        for specs, bind in ((self.inputs, binding.bind_input), (self.outputs, binding.bind_output)):
            for name, spec in specs.items():
                if name not in pointers:
                    raise InputError(f"the address of '{name}' is missing. Bind every tensor of the engine.")
                bind(name, self._device, 0, np.dtype(spec.dtype).type, spec.shape, pointers[name])
        self._binding = binding

    def enqueue(self, stream: int) -> None:
        session = self._open_session()
        try:
            session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed to run: {one_line(error)}") from error

    def precision_by_layer_type(self) -> dict[str, dict[str, int]]:
        return {}

    def close(self) -> None:
        self._session = self._binding = None

    def _open_session(self) -> Any:
        if self._session is None:
            raise ClosedError("the engine is closed. Open another.")
        return self._session


def _describe(node: Any) -> TensorSpec:
    return TensorSpec(name=node.name, shape=tuple(int(size) for size in node.shape), dtype=ELEMENTS[node.type])

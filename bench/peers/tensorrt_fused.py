"""The fused graph as one TensorRT engine, run as its own samples run one: without kernels or a CUDA graph of ours."""

import importlib.util
import tempfile
from pathlib import Path

from ndp_rt.bench.peers.arrays import ArrayRunner, make_arrays
from ndp_rt.bench.peers.base import BundlePeer
from ndp_rt.bench.peers.fused_graph import make_fused_graph
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backend import DeviceBackend, EngineOptions
from ndp_rt.engines.backends.tensorrt import TensorRtBackend
from ndp_rt.engines.engine import DeviceEngine


class TensorRtPeer(BundlePeer):
    """See `ndp_rt.bench.peers.base.Peer`."""

    name = "tensorrt-fused"
    precisions = ("fp32", "tf32", "fp16")  # CuPy's arrays have no bfloat16

    def __init__(self, backend: DeviceBackend | None = None, device: str = "cuda") -> None:
        """Take what builds the engine; None: TensorRT. `device` is where its tensors lie."""
        self._backend: DeviceBackend = backend or TensorRtBackend()
        self._device = device

    def find(self) -> str | None:
        status = self._backend.find()
        if status.version is None:
            return f"TensorRT is not installed: {status.remedy}."
        if not status.devices:
            return "there is no GPU: it needs one of NVIDIA's and a driver (in a container: --gpus all)."
        if importlib.util.find_spec("onnx") is None:
            return "onnx is not installed: pip install onnx."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> ArrayRunner:
        model = make_fused_graph(bundle, precision, batch)
        arrays = make_arrays(self._device)
        options = EngineOptions(precision=precision, batch=batch)
        with tempfile.TemporaryDirectory() as folder:
            path, artifact = Path(folder) / "fused.onnx", Path(folder) / "engine"
            path.write_bytes(model.SerializeToString())
            artifact.mkdir()
            self._backend.compile(path, artifact, options)
            engine: DeviceEngine = self._backend.load(artifact, options)
        try:
            self._backend.check_precision(engine.precision_by_layer_type(), precision)
        except BaseException:
            engine.close()
            raise
        return ArrayRunner(engine, arrays, {"tensorrt": self._backend.find().version, "cuda_graph": False})

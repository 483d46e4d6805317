"""The fused graph on a GPU through ONNX Runtime and TensorRT, with CuPy around it in place of kernels of ours."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.rivals.base import Answer, Image, OpenRival, Rival
from ndp_rt.bench.rivals.fused_graph import ONNX, make_fused_graph
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backend import DeviceBackend, EngineOptions
from ndp_rt.engines.backends.tensorrt import TensorRtBackend
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import EngineError
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import DecisionRules
from ndp_rt.program.tensors import TensorSpec

SMOOTH_SIZE = (1, 1, 5, 5)
WARM_UP_COUNT = 3  # with a CUDA graph: a plain run, the capture, the first replay
ENGINE_RUN_COUNT = 20
ORT_REMEDY = "pip install onnxruntime-gpu (in place of onnxruntime)"
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
ELEMENTS = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class CupyArrays:
    """Arrays on a GPU and a stream for all that is done with them."""

    device = "cuda"

    def __init__(self) -> None:
        import cupy

        self.xp: Any = cupy
        self.ndimage: Any = importlib.import_module("cupyx.scipy.ndimage")
        self._cupyx: Any = importlib.import_module("cupyx")
        self.stream: Any = cupy.cuda.Stream(non_blocking=True)
        self.stream_pointer = int(self.stream.ptr)

    def use(self) -> contextlib.AbstractContextManager[Any]:
        """Put what is done within on the stream."""
        stream: contextlib.AbstractContextManager[Any] = self.stream
        return stream

    def make_pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._cupyx.empty_pinned(shape, dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    def copy(self, source: Any, target: Any) -> None:
        """Copy between an array on the GPU and one in pinned memory, on the stream."""
        is_upload = isinstance(source, np.ndarray)
        pointers = [one.ctypes.data if isinstance(one, np.ndarray) else one.data.ptr for one in (target, source)]
        runtime = self.xp.cuda.runtime
        kind = runtime.memcpyHostToDevice if is_upload else runtime.memcpyDeviceToHost
        runtime.memcpyAsync(*pointers, source.nbytes, kind, self.stream_pointer)

    def synchronize(self) -> None:
        self.stream.synchronize()


def open_engine(engine: Any, arrays: CupyArrays, facts: Mapping[str, Any]) -> OpenRival:
    """Return a rival of an engine from `image` to `map`, run a few times; the engine is closed if that fails.

    `facts` gain `engine_ms`, what the engine takes by itself: CuPy's filters around it are no small part.
    """
    try:
        n, c, h, w = (size or 0 for size in engine.inputs["image"].shape)
        xp = arrays.xp
        with arrays.use():
            pictures = xp.empty((n, h, w, c), np.uint8)
            image = xp.empty((n, c, h, w), np.dtype(engine.inputs["image"].dtype))
            anomaly_map = xp.empty((n, 1, h, w), np.dtype(engine.outputs["map"].dtype))
        pictures_host = arrays.make_pinned((n, h, w, c), np.uint8)
        maps_host = arrays.make_pinned((n, 1, h, w), np.float32)
        scores_host = arrays.make_pinned((n,), np.float32)
        engine.bind({"image": arrays.address(image), "map": arrays.address(anomaly_map)})

        def call(images: Sequence[Image]) -> Answer:
            for index, one in enumerate(images):
                pictures_host[index] = one
            with arrays.use():
                arrays.copy(pictures_host, pictures)
                prepare(xp, pictures, image)
                engine.enqueue(arrays.stream_pointer)
                smoothed = smooth(arrays.ndimage, anomaly_map.astype(np.float32))
                arrays.copy(smoothed, maps_host)
                arrays.copy(smoothed.max(axis=(1, 2, 3)), scores_host)
                arrays.synchronize()
            return maps_host, scores_host

        for _ in range(WARM_UP_COUNT):
            call([np.zeros((h, w, c), np.uint8)] * n)
        times_ms = []
        with arrays.use():
            for _ in range(ENGINE_RUN_COUNT):
                start = time.perf_counter()
                engine.enqueue(arrays.stream_pointer)
                arrays.synchronize()
                times_ms.append((time.perf_counter() - start) * 1e3)
        return OpenRival((n, h, w, c), call, {**facts, "engine_ms": float(np.median(times_ms))}, engine.close)
    except BaseException:
        engine.close()
        raise


def prepare(xp: Any, pictures: Any, image: Any) -> None:
    """Write uint8 pictures [n, h, w, c] to image [n, c, h, w], 0 to 1."""
    xp.divide(pictures.transpose(0, 3, 1, 2), 255, out=image, dtype=np.float32, casting="unsafe")


def smooth(ndimage: Any, maps: Any) -> Any:
    """Return float32 maps [n, 1, h, w] after a 5 x 5 mean and a 5 x 5 median, borders replicated."""
    mean = ndimage.uniform_filter(maps, size=SMOOTH_SIZE, mode="nearest")
    return ndimage.median_filter(mean, size=SMOOTH_SIZE, mode="nearest")


def find_no_provider(device: str) -> str | None:
    """Return why ONNX Runtime, which is installed, cannot run on "cuda" or "cpu"; None: it can."""
    import onnxruntime

    if PROVIDERS[device] in onnxruntime.get_available_providers():
        return None
    return f"ONNX Runtime {onnxruntime.__version__} has no {PROVIDERS[device]}: {ORT_REMEDY}."


class DeviceGraphRival(Rival):
    """The fused graph with CuPy's filters behind it, which know one rule of smoothing and score."""

    def find_misfit(self, manifest: BundleManifest) -> str | None:
        if manifest.decision != DecisionRules():
            return f"{manifest.name} smooths or scores by another rule than NDP-Net. Compare with other networks."
        return super().find_misfit(manifest)


class TensorRtRival(DeviceGraphRival):
    """The fused graph as one TensorRT engine, run as its own samples run one."""

    name = "tensorrt-fused"
    precisions = ("fp32", "tf32", "fp16")  # CuPy's arrays have no bfloat16
    needs = ONNX

    def __init__(self, backend: DeviceBackend | None = None, make_arrays: Any = CupyArrays) -> None:
        """Take what builds the engine, None: TensorRT; and what its tensors lie in."""
        self._backend: DeviceBackend = backend or TensorRtBackend()
        self._make_arrays = make_arrays

    def find(self) -> str | None:
        status = self._backend.find()
        if status.version is None:
            return f"TensorRT is not installed: {status.remedy}."
        if not status.devices:
            return "there is no GPU: it needs one of NVIDIA's and a driver (in a container: --gpus all)."
        return super().find()

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        arrays, options = self._make_arrays(), EngineOptions(precision=precision, batch=batch)
        with tempfile.TemporaryDirectory() as folder:
            path, artifact = Path(folder) / "fused.onnx", Path(folder) / "engine"
            path.write_bytes(make_fused_graph(bundle, precision, batch).SerializeToString())
            artifact.mkdir()
            self._backend.compile(path, artifact, options)
            engine = self._backend.load(artifact, options)
        try:
            self._backend.check_precision(engine.precision_by_layer_type(), precision)
        except BaseException:
            engine.close()
            raise
        return open_engine(engine, arrays, {"tensorrt": self._backend.find().version, "cuda_graph": False})


class OnnxRuntimeCudaRival(DeviceGraphRival):
    """ONNX Runtime's CUDA provider, everything bound to device memory, in a CUDA graph if it can."""

    name = "onnxruntime-cuda"
    precisions = ("fp32", "tf32", "fp16")
    needs = {"onnxruntime": ORT_REMEDY, **ONNX}  # noqa: RUF012

    def __init__(self, make_arrays: Any = CupyArrays) -> None:
        """Take what its tensors lie in."""
        self._make_arrays = make_arrays

    def find(self) -> str | None:
        return super().find() or find_no_provider(self._make_arrays.device)

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        content = make_fused_graph(bundle, precision, batch).SerializeToString()
        if self._make_arrays.device == "cuda":
            with contextlib.suppress(EngineError):  # an operator that does not run there, or not in a capture
                return self._open(content, precision, has_graph=True)
        return self._open(content, precision, has_graph=False)

    def _open(self, content: bytes, precision: str, *, has_graph: bool) -> OpenRival:
        arrays = self._make_arrays()
        engine = OnnxRuntimeEngine(content, arrays, allows_tf32=precision == "tf32", has_graph=has_graph)
        names = importlib.metadata.packages_distributions().get("onnxruntime", ["onnxruntime"])  # there are several
        version = f"{names[0]} {importlib.metadata.version(names[0])}"
        return open_engine(engine, arrays, {"onnxruntime": version, "cuda_graph": has_graph})


class OnnxRuntimeEngine:
    """A session with bound tensors: what `open_engine` asks of an engine."""

    def __init__(self, content: bytes, arrays: Any, *, allows_tf32: bool, has_graph: bool) -> None:
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
            found = self._session.get_providers()[0]
            raise EngineError(f"ONNX Runtime runs {found} instead. See its log; {ORT_REMEDY}.")
        self._binding: Any = None
        self.inputs = {node.name: _describe(node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _describe(node) for node in self._session.get_outputs()}

    def bind(self, pointers: Mapping[str, int]) -> None:
        binding = self._session.io_binding()
        for specs, bind in ((self.inputs, binding.bind_input), (self.outputs, binding.bind_output)):
            for name, spec in specs.items():
                bind(name, self._device, 0, np.dtype(spec.dtype).type, spec.shape, pointers[name])
        self._binding = binding

    def enqueue(self, stream: int) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed to run: {one_line(error)}") from error

    def close(self) -> None:
        self._session = self._binding = None


def _describe(node: Any) -> TensorSpec:
    return TensorSpec(name=node.name, shape=tuple(int(size) for size in node.shape), dtype=ELEMENTS[node.type])

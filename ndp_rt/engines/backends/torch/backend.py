"""The torch-cuda backend: typed ONNX stages through PyTorch, for a GPU without TensorRT, and for comparison with it.

The same classes run on the CPU (`TorchCudaBackend("cpu")`), where they are tested; they are not meant to inspect there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backend import BackendStatus, DeviceBackend, EngineOptions
from ndp_rt.errors import BundleError, DeviceError, EngineError, MissingExtraError

if TYPE_CHECKING:
    from ndp_rt.engines.backends.torch.engine import TorchCudaEngine

NAME = "torch-cuda"
PRECISIONS = {"fp32": "f32", "tf32": "tf32", "fp16": "f16", "bf16": "bf16"}
MODEL_FILE = "model.onnx"
REMEDY = "pip install 'ndp-rt[train]'"
CPU_ONLY_REMEDY = "the installed PyTorch has no CUDA; install one that has (pytorch.org names the command)"
COMPUTE_OPERATORS = frozenset({"Conv", "ConvTranspose", "MatMul"})


def import_torch() -> Any:
    """Return the module torch.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"PyTorch cannot be imported ({error}). Install it with: {REMEDY}") from error
    return torch


class TorchCudaBackend(DeviceBackend):
    """See `ndp_rt.engines.backend.DeviceBackend`."""

    name = NAME
    order = 20
    precisions = tuple(PRECISIONS)
    distributions = ("torch",)
    remedy = REMEDY

    def __init__(self, device: str = "cuda") -> None:
        """Choose the device: "cuda", the current one, or "cpu", for tests."""
        self._device = device

    def find(self) -> BackendStatus:
        found = super().find()
        if found.version is None or not found.version.endswith("+cpu"):
            return found
        return BackendStatus(version=found.version, remedy=CPU_ONLY_REMEDY)

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        """Fix the batch size and run the stage once; the typed ONNX of that batch, weights inside, is the artifact."""
        from ndp_rt.engines.backends.torch.engine import TorchCudaEngine
        from ndp_rt.graphs.folding import fix_batch, load_model

        self.check_offered(options.precision)
        device = self._find_device()
        model = load_model(onnx_path)
        fix_batch(model, options.batch)
        engine = TorchCudaEngine(model, device, options.precision)
        notes = {"torch": self._describe_torch(), "held_bytes": engine.held_bytes}
        engine.close()
        content = model.SerializeToString(deterministic=True)
        (artifact / MODEL_FILE).write_bytes(content)
        return {**notes, "artifact_bytes": len(content)}

    def load(self, artifact: Path, options: EngineOptions) -> "TorchCudaEngine":
        from ndp_rt.engines.backends.torch.engine import TorchCudaEngine
        from ndp_rt.graphs.folding import load_model

        self.check_offered(options.precision)
        device = self._find_device()
        try:
            model = load_model(artifact / MODEL_FILE)
        except BundleError as error:
            raise EngineError(f"{artifact / MODEL_FILE}: is no stage of an engine. Build with --rebuild.") from error
        return TorchCudaEngine(model, device, options.precision)

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        wanted = PRECISIONS[precision]
        found: dict[str, int] = {}
        # Graphs in bf16 have their transposed convolutions in float32 (`ndp_rt.graphs.typed`).
        kinds = COMPUTE_OPERATORS - {"ConvTranspose"} if precision == "bf16" else COMPUTE_OPERATORS
        for kind in kinds & set(counts):
            for name, count in counts[kind].items():
                found[name] = found.get(name, 0) + count
        # In half precision a graph may sum squares by a convolution in float32; all others are in the type asked for.
        others = sum(found.values()) - found.get(wanted, 0)
        if not found.get(wanted) or others * 2 > found[wanted] or (wanted in ("f32", "tf32") and others):
            words = ", ".join(f"{count} x {name}" for name, count in sorted(found.items())) or "nothing"
            raise EngineError(
                f"asked for {precision}, PyTorch computes convolutions and products in {words}. "
                + ("TF32 needs an Ampere GPU or later; build" if precision == "tf32" else "Build")
                + " with --precision fp32."
            )

    def capture(self, device: Any, stream: Any, enqueue: Callable[[], None]) -> Any:
        """Capture a stream's work; see `ndp_rt.engines.backends.torch.capture.capture_graph`."""
        from ndp_rt.engines.backends.torch.capture import capture_graph

        return capture_graph(import_torch(), stream, enqueue)

    def _find_device(self) -> Any:
        torch = import_torch()
        if self._device == "cpu":
            return torch.device("cpu")
        if torch.version.cuda is None:
            raise DeviceError(f"--backend {NAME}: {CPU_ONLY_REMEDY} (found {torch.__version__}).")
        if not torch.cuda.is_available():
            raise DeviceError(
                f"--backend {NAME}: PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}, finds no GPU. It "
                "needs one of NVIDIA's and a driver for that CUDA (in a container: --gpus all)."
            )
        return torch.device("cuda", torch.cuda.current_device())

    def _describe_torch(self) -> str:
        torch = import_torch()
        return f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"

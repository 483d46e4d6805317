"""PyTorch, as a competent user runs the fused graph: half precision, channels_last, pinned upload, torch.compile."""

import contextlib
import importlib.metadata
import importlib.util
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.peers.base import FloatArray, Image, check_images
from ndp_rt.bench.peers.fused_graph import make_fused_graph
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.base import one_line
from ndp_rt.engines.torch_cuda import hold_settings
from ndp_rt.errors import ClosedError, EngineError, NdpRtError

REMEDY = "pip install 'ndp-rt[train]'"
_OPEN_COMPILED: set[int] = set()  # runners whose compiled code is in use
WARM_UP_COUNT = 3  # compiled: one that compiles, one that records the CUDA graph, its first replay


class TorchPeer:
    """See `ndp_rt.bench.peers.base.Peer`."""

    precisions = ("fp32", "tf32", "fp16", "bf16")

    def __init__(self, name: str, compile_options: Mapping[str, Any] | None = None, device: str = "cuda") -> None:
        """Choose what runs.

        Args:
            name: in the record.
            compile_options: keywords of torch.compile; None: eager.
            device: "cuda", or "cpu" for tests.
        """
        self.name = name
        self._compile_options = compile_options
        self._device = device

    def find(self) -> str | None:
        for module, remedy in (("torch", REMEDY), ("onnx", "pip install onnx")):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed: {remedy}."
        import torch

        if self._device == "cuda" and torch.version.cuda is None:
            return f"PyTorch {torch.__version__} has no CUDA; install one that has (pytorch.org names the command)."
        if self._device == "cuda" and not torch.cuda.is_available():
            return f"PyTorch {torch.__version__} finds no GPU: it needs one of NVIDIA's and a driver for its CUDA."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int) -> "TorchRunner":
        return TorchRunner(make_fused_graph(bundle, precision, batch), precision, self._device, self._compile_options)


class TorchRunner:
    """See `ndp_rt.bench.peers.base.PeerRunner`."""

    def __init__(self, model: Any, precision: str, device: str, compile_options: Mapping[str, Any] | None) -> None:
        """Load the weights, compile, and run until nothing changes any more."""
        import torch

        from ndp_rt.bench.peers.torch_modules import Inspection
        from ndp_rt.engines.torch_program import TorchProgram

        self._torch: Any = torch
        self._is_on_gpu = device == "cuda"
        self._allows_tf32 = precision == "tf32"
        program = TorchProgram(model, torch.device(device), channels_last=True)
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        module = Inspection(program, dtype, has_network=compile_options is not None).eval()
        self._call: Callable[[Any], tuple[Any, Any]] | None = module
        self._is_compiled = compile_options is not None
        if compile_options is not None:
            self._call = torch.compile(make_entry(module), fullgraph=True, dynamic=False, **compile_options)
            _OPEN_COMPILED.add(id(self))
        n, c, h, w = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
        pinned: dict[str, Any] = {"pin_memory": self._is_on_gpu}
        self._pictures_host = torch.empty((n, h, w, c), dtype=torch.uint8, **pinned)
        self._pictures = torch.empty((n, h, w, c), dtype=torch.uint8, device=device)
        self._maps_host = torch.empty((n, 1, h, w), dtype=torch.float32, **pinned)
        self._scores_host = torch.empty((n,), dtype=torch.float32, **pinned)
        skips_before = _count_graph_skips(torch)
        try:
            for _ in range(WARM_UP_COUNT):
                self.run([np.zeros((h, w, c), np.uint8)] * n)
        except Exception as error:  # what compilers raise shares no base
            self.close()
            if isinstance(error, NdpRtError):
                raise
            raise EngineError(f"PyTorch cannot run or compile the graph: {one_line(error)[:2000]}") from error
        self.facts: dict[str, Any] = {
            "torch": importlib.metadata.version("torch"),
            "compile": dict(compile_options or {}),
            # Inductor drops a CUDA graph without an error, and counts that.
            "cuda_graph": self._is_on_gpu and compile_options is not None and _count_graph_skips(torch) == skips_before,
        }

    def run(self, images: Sequence[Image]) -> tuple[FloatArray, FloatArray]:
        torch, call = self._torch, self._call
        if call is None:
            raise ClosedError("the rival is closed. Open another.")
        check_images(images, tuple(self._pictures_host.shape))
        pictures = self._pictures_host.numpy()
        for index, image in enumerate(images):
            pictures[index] = image
        with torch.inference_mode(), set_switches(torch, allows_tf32=self._allows_tf32):
            self._pictures.copy_(self._pictures_host, non_blocking=True)
            smoothed, scores = call(self._pictures)
            self._maps_host.copy_(smoothed, non_blocking=True)
            self._scores_host.copy_(scores, non_blocking=True)
            if self._is_on_gpu:
                torch.cuda.current_stream().synchronize()
        return self._maps_host.numpy(), self._scores_host.numpy()

    def close(self) -> None:
        if self._call is None:
            return
        self._call = None
        del self._pictures
        _OPEN_COMPILED.discard(id(self))
        if self._is_compiled and not _OPEN_COMPILED:
            self._torch.compiler.reset()  # frees CUDA graphs, and those of all runners at once
        if self._is_on_gpu:
            self._torch.cuda.empty_cache()


def make_entry(module: Any) -> Callable[[Any], tuple[Any, Any]]:
    """Return a function that calls a module, with code of its own.

    torch.compile keeps what it compiled by the code object, and gives up at the eighth for one.
    """

    def inspect(images: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = module(images)
        return found

    copy = inspect.__code__.replace()
    return types.FunctionType(copy, inspect.__globals__, "inspect", inspect.__defaults__, inspect.__closure__)


@contextlib.contextmanager
def set_switches(torch: Any, *, allows_tf32: bool) -> Iterator[None]:
    """Set PyTorch's process-wide switches for a rival, and put them back: rivals take turns in one process.

    By the older names, which Inductor still reads (seen in 2.13's kernel/conv.py): it fails where the newer ones, as
    the backend torch-cuda uses them, say anything else for a part of the operators.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    settings = ((cudnn, "benchmark", True), (cudnn, "allow_tf32", allows_tf32), (matmul, "allow_tf32", allows_tf32))
    with hold_settings(settings):
        yield


def _count_graph_skips(torch: Any) -> int:
    counters = torch._dynamo.utils.counters
    return int(counters["inductor"]["cudagraph_skips"])

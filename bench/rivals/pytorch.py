"""PyTorch, as a competent user runs the fused graph: half precision, channels_last, pinned upload, torch.compile."""

import contextlib
import importlib.metadata
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ndp_rt.bench.rivals.base import Answer, Image, OpenRival, Rival, enlarge
from ndp_rt.bench.rivals.fused_graph import ONNX, HostSmoother, find_own_score, make_fused_graph
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backends.torch.engine import hold_settings
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import EngineError
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import DecisionRules

REMEDY = "pip install 'ndp-rt[train]'"
MODULE_RULES = DecisionRules()  # of `torch_modules.Inspection`
WARM_UP_COUNT = 3  # compiled: one that compiles, one that records the CUDA graph, its first replay
PRECISIONS = {"cuda": ("fp32", "tf32", "fp16", "bf16"), "cpu": ("fp32", "bf16")}
# Measured on one core with tests/data/bricks.ndp, fp32 and bf16, ms: eager 38 and 18 with channels_last, 47 and
# 40 without; compiled with frozen weights 34 and 18 with, 28 and 18 without; compiled only, 58 and 17, 29 and 18.
FROZEN: Mapping[str, Any] = {"options": {"freezing": True}}
# By device and name; what has none is eager. The autotuned one tries kernels of its own for every convolution, which
# takes minutes for each batch size.
COMPILE_OPTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cpu": {"torch-compile": FROZEN},
    "cuda": {
        "torch-compile": {"mode": "reduce-overhead"},
        "torch-compile-autotuned": {"mode": "max-autotune"},
    },
}


class TorchRival(Rival):
    """The bundle's fused graph in PyTorch."""

    needs = {"torch": REMEDY, **ONNX}  # noqa: RUF012

    def __init__(
        self,
        name: str,
        compile_options: Mapping[str, Any] | None = None,
        device: str = "cuda",
        *,
        smooths_on_host: bool | None = None,
    ) -> None:
        """Choose what runs.

        Args:
            name: in the record.
            compile_options: keywords of torch.compile; None: eager.
            device: "cuda" or "cpu".
            smooths_on_host: smooth with OpenCV, as the inspector does on a CPU; None: where the device is "cpu". On one
                core 128 x 128 take 0.1 ms there, with PyTorch 6.8 eager and 1.0 compiled.
        """
        self.name = name
        self.precisions = PRECISIONS[device]
        self._compile_options = compile_options
        self._device = device
        self._smooths_on_host = device == "cpu" if smooths_on_host is None else smooths_on_host

    def find(self) -> str | None:
        return super().find() or (find_no_gpu() if self._device == "cuda" else None)

    def find_misfit(self, manifest: BundleManifest) -> str | None:
        return find_own_score(manifest) or super().find_misfit(manifest)

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        import torch

        model, skips_before = make_fused_graph(bundle, precision, batch), count_graph_skips(torch)
        on_gpu, is_compiled = self._device == "cuda", self._compile_options is not None
        # A rule of the bundle that the module has not is the host's work.
        rules = bundle.manifest.decision if self._smooths_on_host or bundle.manifest.decision != MODULE_RULES else None
        with contextlib.ExitStack() as stack:
            stack.enter_context(hold_threads(None if on_gpu else threads))
            call = TorchCall(model, precision, self._device, self._compile_options, host_rules=rules)
            stack.callback(call.close)
            try:
                n, h, w, c = call.shape
                for _ in range(WARM_UP_COUNT if on_gpu or is_compiled else 1):
                    call([np.zeros((h, w, c), np.uint8)] * n)
            except Exception as error:  # what compilers raise shares no base
                raise EngineError(f"PyTorch cannot run or compile the graph: {one_line(error)[:2000]}") from error
            facts = {
                "torch": importlib.metadata.version("torch"),
                "compile": dict(self._compile_options or {}),
                # Inductor drops a CUDA graph without an error, and counts that.
                "cuda_graph": on_gpu and is_compiled and count_graph_skips(torch) == skips_before,
            }
            return OpenRival(call.shape, call, facts, stack.pop_all().close)


@contextlib.contextmanager
def hold_threads(threads: int | None) -> Iterator[None]:
    """Let PyTorch use as many threads within; None: as many as before."""
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find_no_gpu() -> str | None:
    """Return why PyTorch has no GPU here; None: it has one."""
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} has no CUDA; install one that has (pytorch.org names the command)."
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU: it needs one of NVIDIA's and a driver for its CUDA."
    return None


class TorchCall:
    """Takes images to answers through a graph's weights in PyTorch."""

    def __init__(
        self,
        model: Any,
        precision: str,
        device: str,
        compile_options: Mapping[str, Any] | None,
        *,
        host_rules: DecisionRules | None,
    ) -> None:
        """Load the weights and set up the compiler, which works at the first call; None: the module smooths, too."""
        import torch

        self._torch: Any = torch
        self._is_on_gpu, self._is_compiled = device == "cuda", compile_options is not None
        self._allows_tf32 = precision == "tf32"
        n, c, h, w = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
        self.shape = (n, h, w, c)
        pinned: dict[str, Any] = {"pin_memory": self._is_on_gpu}
        self._pictures_host = torch.empty(self.shape, dtype=torch.uint8, **pinned)
        self._pictures: Any = self._pictures_host
        if self._is_on_gpu:
            self._pictures = torch.empty(self.shape, dtype=torch.uint8, device=device)
        self._maps_host = torch.empty((n, 1, h, w), dtype=torch.float32, **pinned)
        self._scores_host = torch.empty((n,), dtype=torch.float32, **pinned)
        map_sides = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim][2:]
        self._smooth = None if host_rules is None else HostSmoother(host_rules, n, *map_sides)
        self._call: Callable[[Any], Any] = self._make_module(model, precision, device)
        if compile_options is not None:
            entry = make_entry(self._call)
            self._call = torch.compile(entry, fullgraph=True, dynamic=False, **compile_options)

    def _make_module(self, model: Any, precision: str, device: str) -> Any:
        """Return what takes uint8 images [n, h, w, c] on the device to maps, and to scores unless the host smooths."""
        from ndp_rt.bench.rivals.torch_modules import Inspection, Network
        from ndp_rt.engines.backends.torch.interpreter import TorchProgram

        torch, channels_last = self._torch, self._is_on_gpu or not self._is_compiled
        program = TorchProgram(model, torch.device(device), channels_last=channels_last)
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        network = Network(program, dtype, channels_last=channels_last)
        module: Any = network if self._smooth is not None else Inspection(network, has_network=self._is_compiled)
        return module.eval()

    def __call__(self, images: Sequence[Image]) -> Answer:
        """Take images to maps and scores."""
        torch = self._torch
        pictures = self._pictures_host.numpy()
        for index, image in enumerate(images):
            pictures[index] = image
        with torch.inference_mode(), set_switches(torch, allows_tf32=self._allows_tf32):
            if self._is_on_gpu:
                self._pictures.copy_(self._pictures_host, non_blocking=True)
            if self._smooth is not None:
                maps, scores = self._smooth(np.ascontiguousarray(self._call(self._pictures).cpu().numpy()))
                return enlarge(maps, self.shape[1:3]), scores
            smoothed, scores = self._call(self._pictures)
            self._maps_host.copy_(smoothed, non_blocking=True)
            self._scores_host.copy_(scores, non_blocking=True)
            if self._is_on_gpu:
                torch.cuda.current_stream().synchronize()
        return self._maps_host.numpy(), self._scores_host.numpy()

    def close(self) -> None:
        """Free weights and compiled code."""
        del self._call, self._pictures
        if self._is_compiled:
            self._torch.compiler.reset()  # frees CUDA graphs, and those of all rivals: they are closed together
        if self._is_on_gpu:
            self._torch.cuda.empty_cache()


def make_entry(module: Any) -> Callable[[Any], Any]:
    """Return a function that calls a module, with code of its own.

    torch.compile keeps what it compiled by the code object, and gives up at the eighth for one.
    """

    def inspect(images: Any) -> Any:
        return module(images)

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


def count_graph_skips(torch: Any) -> int:
    """Return how often Inductor has gone without a CUDA graph."""
    counters = torch._dynamo.utils.counters
    return int(counters["inductor"]["cudagraph_skips"])

"""Other networks as PyTorch modules: run by PyTorch, or exported and run by OpenVINO, checked against plain PyTorch."""

import contextlib
import importlib.metadata
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.peers.base import (
    Answer,
    Check,
    Image,
    PeerRunner,
    check_images,
    compare_answers,
    copy_answer,
    list_golden_images,
)
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.engine import Engine, one_line
from ndp_rt.errors import ClosedError, EngineError, InputError, NdpRtError

REMEDY = "pip install 'ndp-rt[train]'"
RUNTIMES = ("pytorch", "openvino")
OPSET = 17
AGAINST = "the same module in plain PyTorch, fp32"


@dataclass(frozen=True, kw_only=True)
class BuiltModule:
    """A torch.nn.Module in eval mode that takes float32 [n, 3, h, w], 0 to 1, to (map [n, 1, h, w], score [n])."""

    module: Any
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_graph: bool = True  # False where it computes gradients, which inference mode forbids


class ModulePeer:
    """See `ndp_rt.bench.peers.base.Peer`; what differs between its kinds is `make_module`."""

    precisions = ("fp32",)

    def __init__(self, name: str, runtime: str = "pytorch", device: str = "cpu") -> None:
        """Choose what runs.

        Args:
            name: in the record.
            runtime: one of RUNTIMES; openvino is for the CPU.
            device: "cuda" or "cpu".

        Raises:
            InputError: another runtime, or openvino on a GPU.
        """
        if runtime not in RUNTIMES or (runtime == "openvino" and device != "cpu"):
            raise InputError(
                f"{name}: runtime is '{runtime}' on '{device}'; {' or '.join(RUNTIMES)} is taken on the CPU, pytorch "
                "on a GPU."
            )
        self.name = name
        self._runtime = runtime
        self._device = device

    def make_module(self) -> BuiltModule:
        """Build the module on the CPU, the same at every call; PyTorch is there. May raise anything but exits."""
        raise NotImplementedError

    def find(self) -> str | None:
        if importlib.util.find_spec("torch") is None:
            return f"torch is not installed: {REMEDY}."
        if self._runtime == "openvino":
            return None if importlib.util.find_spec("openvino") else "openvino is not installed: pip install openvino."
        if self._device == "cuda":
            import torch

            if not torch.cuda.is_available():
                return f"PyTorch {torch.__version__} finds no GPU: it needs one of NVIDIA's, a driver and CUDA."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> "ModuleRunner":
        contract = bundle.manifest.input
        shape = (batch, contract.height_px, contract.width_px, 3)
        threads = threads if self._device == "cpu" else None
        try:
            with hold_threads(threads):
                return self._open(shape, list_golden_images(bundle, batch), threads)
        except NdpRtError:
            raise
        except Exception as error:  # a module's own code, and PyTorch's exporter, raise what they like
            raise EngineError(f"{self.name} cannot be built or run: {one_line(error)[:2000]}") from error

    def _open(self, shape: tuple[int, ...], images: Sequence[Image], threads: int | None) -> "ModuleRunner":
        built = self.make_module()
        facts = {"runtime": self._runtime, **built.facts, "torch": importlib.metadata.version("torch")}
        plain: Any = TorchCall(built, self._device)
        runner = ModuleRunner(plain, shape, threads, {**facts, "channels_last": False}, images)
        runner.expected, runner.facts["gflop"] = count_gflop(lambda: copy_answer(runner.run(images)), len(images))
        if self._runtime == "openvino":
            runner.facts["openvino"] = importlib.metadata.version("openvino")
            runner.use(EngineCall(export_engine(built.module, shape, threads), shape[0]))
        elif built.is_graph and is_convolutional(built.module):
            runner.use(TorchCall(built, self._device, channels_last=True))
            try:
                runner.run(images)
                runner.facts["channels_last"] = True
            except RuntimeError:  # a view that the module takes of its tensors does not exist in that layout
                runner.use(TorchCall(built, self._device))
        return runner

    def check(self, bundle: Bundle, runner: PeerRunner, precision: str, batch: int) -> Check:
        assert isinstance(runner, ModuleRunner)
        # The second run shows that nothing is left of the first.
        found = [compare_answers(runner.run(runner.images), runner.expected, against=AGAINST) for _ in range(2)]
        return max(found, key=lambda check: check.map_max_abs_difference)


class TorchCall:
    """Runs a module with PyTorch."""

    def __init__(self, built: BuiltModule, device: str, *, channels_last: bool = False) -> None:
        """Move the module to the device and the layout, which it keeps."""
        import torch

        self._torch: Any = torch
        self._is_graph, self._device = built.is_graph, device
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._module = built.module.to(device)
        for tensor in (*self._module.parameters(), *self._module.buffers()):
            if tensor.ndim == 4:  # Module.to would also try those of five axes, and fail
                tensor.data = tensor.data.contiguous(memory_format=self._layout)

    def __call__(self, values: Any) -> Answer:
        """Take float32 [n, 3, h, w] to maps and scores."""
        torch = self._torch
        with torch.inference_mode() if self._is_graph else torch.no_grad():
            given = torch.from_numpy(values).to(self._device).contiguous(memory_format=self._layout)
            maps, scores = self._module(given)
            return np.ascontiguousarray(maps.detach().cpu().numpy()), scores.detach().cpu().numpy()

    def close(self) -> None:
        """Its memory goes with the last who knows it."""


class EngineCall:
    """Runs an engine from `image` to `map` and `score`."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self._engine = engine
        self._outputs = {name: np.empty(spec.with_batch(batch), np.float32) for name, spec in engine.outputs.items()}

    def __call__(self, values: Any) -> Answer:
        """Take float32 [n, 3, h, w], the same array every time, to maps and scores."""
        self._engine.run({"image": values}, self._outputs)
        return self._outputs["map"], self._outputs["score"]

    def close(self) -> None:
        self._engine.close()


class ModuleRunner:
    """See `ndp_rt.bench.peers.base.PeerRunner`."""

    expected: Answer  # plain PyTorch's, for `images`

    def __init__(
        self,
        call: TorchCall | EngineCall,
        shape: tuple[int, ...],
        threads: int | None,
        facts: Mapping[str, Any],
        images: Sequence[Image],
    ) -> None:
        """Take what runs images of shape [n, h, w, 3], and the images that it is checked on."""
        n, h, w, c = shape
        self.facts: dict[str, Any] = dict(facts)
        self.images = images
        self._call: TorchCall | EngineCall | None = call
        self._shape, self._threads = shape, threads
        self._values = np.empty((n, c, h, w), np.float32)

    def use(self, call: TorchCall | EngineCall) -> None:
        """Run with this from now on."""
        self._call = call

    def run(self, images: Sequence[Image]) -> Answer:
        if self._call is None:
            raise ClosedError("the rival is closed. Open another.")
        check_images(images, self._shape)
        for image, out in zip(images, self._values, strict=True):
            np.divide(image.transpose(2, 0, 1), np.float32(255), out=out, dtype=np.float32)
        with hold_threads(self._threads):
            return self._call(self._values)

    def close(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.close()


def count_gflop(run: Callable[[], Answer], image_count: int) -> tuple[Answer, float]:
    """Return what `run` returns, and an image's 10^9 operations: convolutions, matrix products, and their gradients."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        answer = run()
    return answer, counter.get_total_flops() / image_count * 1e-9


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


def is_convolutional(module: Any) -> bool:
    """Tell whether most of a module's weights are filters, which PyTorch on a CPU computes faster in channels_last."""
    sizes = [(weight.ndim == 4, weight.numel()) for weight in (*module.parameters(), *module.buffers())]
    filters = sum(size for is_filter, size in sizes if is_filter)
    return bool(2 * filters > sum(size for _, size in sizes))


def export_engine(module: Any, shape: tuple[int, ...], threads: int | None) -> Engine:
    """Return an OpenVINO engine in fp32 of a module for images of shape [n, h, w, 3].

    Raises:
        EngineError: OpenVINO refuses the graph. What PyTorch's exporter raises is passed on.
    """
    import torch

    from ndp_rt.bench.peers.host_engines import compile_file

    n, h, w, c = shape
    with tempfile.TemporaryDirectory(prefix="ndp-rt-rival-") as folder, warnings.catch_warnings(), torch.no_grad():
        path = Path(folder) / "module.onnx"
        warnings.simplefilter("ignore")  # the TorchScript exporter is deprecated; see export/onnx_graphs.py
        torch.onnx.export(
            module,
            (torch.zeros((n, c, h, w)),),
            str(path),  # as a Path it would not be written beside weights of more than 2 GiB
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["map", "score"],
        )
        return compile_file("openvino", path, EngineOptions(batch=n, threads=threads))

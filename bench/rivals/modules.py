"""Other networks as PyTorch modules: run by PyTorch, or exported and run by OpenVINO, checked against plain PyTorch."""

import importlib.metadata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.bench.models import find_architecture
from ndp_rt.bench.rivals import ANOMALIB_PREFIX
from ndp_rt.bench.rivals.base import (
    Answer,
    Check,
    FloatArray,
    Image,
    OpenRival,
    Rival,
    compare_answers,
    copy_answer,
    list_golden_images,
)
from ndp_rt.bench.rivals.onnx_file import open_openvino
from ndp_rt.bench.rivals.pytorch import REMEDY, find_no_gpu, hold_threads
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import EngineError, InputError, NdpRtError
from ndp_rt.files import make_temporary_folder
from ndp_rt.program.manifest import InputContract

RUNTIMES = ("pytorch", "openvino")
OPSET = 17
AGAINST = "the same module in plain PyTorch, fp32"
Run = Callable[[FloatArray], Answer]


@dataclass(frozen=True, kw_only=True)
class BuiltModule:
    """A torch.nn.Module in eval mode that takes float32 [n, 3, h, w], 0 to 1, to (map [n, 1, h, w], score [n])."""

    module: Any
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_graph: bool = True  # False where it computes gradients, which inference mode forbids


class ModuleRival(Rival):
    """What differs between its kinds is `make_module`."""

    is_same_network = False

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
                f"{name}: expected {' or '.join(RUNTIMES)} on the CPU and pytorch on a GPU, got runtime '{runtime}' on "
                f"'{device}'."
            )
        self.name = name
        self._runtime, self._device = runtime, device
        self.needs = {"torch": REMEDY} | ({"openvino": "pip install openvino"} if runtime == "openvino" else {})

    def make_module(self, contract: InputContract) -> BuiltModule:
        """Build the module on the CPU for images of the contract's size, the same at every call; PyTorch is there.

        May raise anything but exits.
        """
        raise NotImplementedError

    def find(self) -> str | None:
        return super().find() or (find_no_gpu() if self._device == "cuda" else None)

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        contract = bundle.manifest.input
        shape = (batch, contract.height_px, contract.width_px, 3)
        threads = threads if self._device == "cpu" else None
        try:
            with hold_threads(threads):
                built = self.make_module(contract)
                return self._open(built, shape, list_golden_images(bundle, batch), threads)
        except NdpRtError:
            raise
        except Exception as error:  # a module's own code, and PyTorch's exporter, raise what they like
            raise EngineError(f"{self.name} cannot be built or run: {one_line(error)[:2000]}") from error

    def _open(
        self, built: BuiltModule, shape: tuple[int, ...], images: Sequence[Image], threads: int | None
    ) -> OpenRival:
        call = ModuleCall(run_module(built, self._device), shape, threads)
        call.expected, gflop = count_gflop(lambda: copy_answer(call(images)), len(images))
        facts = {"runtime": self._runtime, **built.facts, "torch": importlib.metadata.version("torch")}
        facts |= {"channels_last": False, "gflop": gflop}
        self._call = call
        if self._runtime == "openvino":
            facts["openvino"] = importlib.metadata.version("openvino")
            call.run = export_module(built.module, shape, threads)
            return OpenRival(shape, call, facts)
        if built.is_graph and is_convolutional(built.module):
            call.run = run_module(built, self._device, channels_last=True)
            try:
                call(images)
                facts["channels_last"] = True
            except RuntimeError:  # a view that the module takes of its tensors does not exist in that layout
                call.run = run_module(built, self._device)
        return OpenRival(shape, call, facts)

    def check(self, bundle: Bundle, opened: OpenRival, precision: str) -> Check:
        images = list_golden_images(bundle, opened.shape[0])
        # The second run shows that nothing is left of the first.
        found = [compare_answers(opened.run(images), self._call.expected, against=AGAINST) for _ in range(2)]
        return max(found, key=lambda check: check.map_max_abs_difference)


class ModuleCall:
    """Takes images to answers through `run`, which takes float32 [n, 3, h, w], the same array every time."""

    expected: Answer  # plain PyTorch's, for the golden images

    def __init__(self, run: Run, shape: tuple[int, ...], threads: int | None) -> None:
        n, h, w, c = shape
        self.run, self._threads = run, threads
        self._values = np.empty((n, c, h, w), np.float32)

    def __call__(self, images: Sequence[Image]) -> Answer:
        """Take images to maps and scores."""
        for image, out in zip(images, self._values, strict=True):
            np.divide(image.transpose(2, 0, 1), np.float32(255), out=out, dtype=np.float32)
        with hold_threads(self._threads):
            return self.run(self._values)


def run_module(built: BuiltModule, device: str, *, channels_last: bool = False) -> Run:
    """Return what runs a module with PyTorch; it is moved to the device and the layout, which it keeps."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = built.module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:  # Module.to would also try those of five axes, and fail
            tensor.data = tensor.data.contiguous(memory_format=layout)

    def run(values: FloatArray) -> Answer:
        with torch.inference_mode() if built.is_graph else torch.no_grad():
            maps, scores = module(torch.from_numpy(values).to(device).contiguous(memory_format=layout))
            return np.ascontiguousarray(maps.detach().cpu().numpy()), scores.detach().cpu().numpy()

    return run


def count_gflop(run: Callable[[], Answer], image_count: int) -> tuple[Answer, float]:
    """Return what `run` returns, and an image's 10^9 operations: convolutions, matrix products, and their gradients."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        answer = run()
    return answer, counter.get_total_flops() / image_count * 1e-9


def is_convolutional(module: Any) -> bool:
    """Tell whether most of a module's weights are filters, which PyTorch on a CPU computes faster in channels_last."""
    sizes = [(weight.ndim == 4, weight.numel()) for weight in (*module.parameters(), *module.buffers())]
    filters = sum(size for is_filter, size in sizes if is_filter)
    return bool(2 * filters > sum(size for _, size in sizes))


def export_module(module: Any, shape: tuple[int, ...], threads: int | None) -> Run:
    """Return what runs a module by OpenVINO in fp32, for images of shape [n, h, w, 3].

    Raises:
        EngineError: OpenVINO refuses the graph. What PyTorch's exporter raises is passed on.
    """
    import torch

    n, h, w, c = shape
    with make_temporary_folder("rival") as folder, warnings.catch_warnings(), torch.no_grad():
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
        session = open_openvino(path, (n, c, h, w), threads)

    def run(values: FloatArray) -> Answer:
        maps, scores = session.run(values)
        return maps, scores

    return run


SOURCE = "reported: NDP-Net paper, tables II to IV, MVTec AD's five textures"


class ArchitectureRival(ModuleRival):
    """A reference architecture with random weights."""

    def find(self) -> str | None:
        reason = super().find()
        if reason is not None or self._runtime != "openvino" or find_architecture(self.name).is_graph:
            return reason
        return "it is no single graph that could be exported. Run it with PyTorch: --models-on pytorch."

    def make_module(self, contract: InputContract) -> BuiltModule:
        page = find_architecture(self.name)
        module = page.build()
        facts = {
            "title": page.title,
            "input_px": module.crop_px or module.input_px,
            "weights": "random",
            "counted": f"docs/bench-methods.md, {page.title}",
            "notes": ["random weights: its time is that of any, its maps mean nothing"],
            "reported": describe_reported(page.reported),
        }
        return BuiltModule(module=module, facts=facts, is_graph=page.is_graph)


def describe_reported(reported: Mapping[str, float]) -> dict[str, float | str | None] | None:
    """Return reported percents as a record's row has accuracies, 0 to 1; None where nothing is reported."""
    if not reported:
        return None
    metrics = ("image_rocauc", "pixel_rocauc", "aupro")
    areas = {name: round(reported[name] / 100, 4) if name in reported else None for name in metrics}
    return {**areas, "source": SOURCE}


PEERS_REMEDY = "pip install 'ndp-rt[peers]'"
# Its image models that can be built without fetching weights or data (seen in 2.7.0), but for those of FITTED. Others,
# such as Cfa, want a pre-trained network whatever they are told.
ANOMALIB = (
    "Cflow",
    "Dfkde",
    "Dfm",
    "Draem",
    "Dsr",
    "EfficientAd",
    "Fastflow",
    "Fre",
    "Ganomaly",
    "Glass",
    "Patchflow",
    "ReverseDistillation",
)
FITTED = ("Padim", "Patchcore", "Stfpm")  # that `torch_fitted` knows how to fit


class AnomalibRival(ModuleRival):
    """One of anomalib's models, with random weights or fitted to images."""

    def __init__(self, name: str, runtime: str = "pytorch", device: str = "cpu", fit: Path | None = None) -> None:
        """Choose one of ANOMALIB, or of FITTED where there are images to fit it to; the rest is `ModuleRival`'s.

        Raises:
            InputError: another name.
        """
        names = ANOMALIB if fit is None else FITTED
        if name not in names:
            why = "" if name not in (*ANOMALIB, *FITTED) else " without --fit" if fit is None else " with --fit"
            raise InputError(
                f"--against names '{ANOMALIB_PREFIX}{name}'. Choose {ANOMALIB_PREFIX} and one of {', '.join(names)}"
                f"{why}."
            )
        super().__init__(f"{ANOMALIB_PREFIX}{name}", runtime, device)
        self._model, self._fit, self.is_fitted = name, fit, fit is not None
        self.needs = {"anomalib": PEERS_REMEDY, **self.needs}

    def make_module(self, contract: InputContract) -> BuiltModule:
        from ndp_rt.bench.rivals.torch_anomalib import build_anomalib

        facts: dict[str, Any] = {"anomalib": importlib.metadata.version("anomalib")}
        if self._fit is not None:
            from ndp_rt.bench.rivals.torch_fitted import build_fitted

            module, fitted = build_fitted(self._model, self._fit, contract)
            return BuiltModule(module=module, facts={**facts, **fitted})
        module, filled, size = build_anomalib(self._model)
        facts |= {"weights": "random", "filled": filled, "input_px": list(size)}
        return BuiltModule(module=module, facts=facts)

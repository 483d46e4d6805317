"""A plan of a bundle on the fake GPU, with everything that a test may want to look at."""

from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.graph import capture_graph
from ndp_rt.kernels.load import KernelSet
from ndp_rt.runtime.gpu import GpuPlan
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.host_engines import HostEngine


class Rig:
    """A fake GPU with a plan of the tiny bundle on it."""

    def __init__(self, gpu: FakeCuda, bundle: Bundle, folder: Path, batches: tuple[int, ...], **changes: Any) -> None:
        self.gpu, self.bundle = gpu, bundle
        names = [name for name in ("encoder", "tail", "decoder", "head", "segmentation", "fused")]
        present = [name for name in names if (folder / f"{name}.onnx").is_file()]
        self.engines = {
            size: {name: HostEngine(folder / f"{name}.onnx", size, gpu.machine) for name in present} for size in batches
        }
        device = CudaDevice(0)
        self.kernels = KernelSet()
        arguments: dict[str, Any] = {
            "precision": "fp32",
            "engine_hash": "tiny",
            "kernels": self.kernels,
            "capture": lambda stream, enqueue: capture_graph(device, stream, enqueue),
        }
        features = None if "fused" in present else bundle.reference()
        self.plan = GpuPlan(device, self.engines, features, **{**arguments, **changes})

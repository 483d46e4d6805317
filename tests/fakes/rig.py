"""A program of a bundle on the fake GPU, with everything that a test may want to look at."""

from pathlib import Path
from typing import Any

from ndp_rt.bundle import Bundle
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.devices.cuda.graph import capture_graph
from ndp_rt.kernels.load import KernelSet
from ndp_rt.runtime.cuda_program import CudaProgram
from tests.fakes.fake_cupy import FakeCuda
from tests.fakes.host_engines import HostEngine


class Rig:
    """A fake GPU with a program of the tiny bundle on it."""

    def __init__(
        self, gpu: FakeCuda, bundle: Bundle, plan: str, folder: Path, batches: tuple[int, ...], **changes: Any
    ) -> None:
        self.gpu, self.bundle = gpu, bundle
        stages = bundle.manifest.programs["cuda"][plan].stages
        self.engines = {
            size: {name: HostEngine(folder / f"{name}.onnx", size, gpu.machine) for name in stages} for size in batches
        }
        device = CudaDevice(0)
        self.kernels = KernelSet()
        arguments: dict[str, Any] = {
            "precision": "fp32",
            "engine_hash": "tiny",
            "kernels": self.kernels,
            "capture": lambda stream, enqueue: capture_graph(device, stream, enqueue),
        }
        self.program = CudaProgram(bundle, plan, device, self.engines, **{**arguments, **changes})

    def smooth(self, batch: Any) -> Any:
        """Return the smoothed maps of a batch, float32 [n, 1, h, w], step by step."""
        return self.program.trace(batch, ("smoothed",))["smoothed"]

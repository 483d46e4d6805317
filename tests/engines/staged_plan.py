"""A GPU plan of torch-cuda engines, with the kernels' NumPy forms between them, to compare with golden vectors."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ndp_rt.bundle import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.torch.backend import TorchCudaBackend
from ndp_rt.engines.backends.torch.engine import TorchCudaEngine
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.graphs.stages import make_stages
from ndp_rt.graphs.typed import make_typed
from ndp_rt.kernels.fuse_maps.definition import LEVEL_MAPS, fuse_maps
from ndp_rt.kernels.rbfrm.host import RbfrmHost
from ndp_rt.kernels.score.definition import score
from ndp_rt.kernels.smooth.host import smooth


def load_engine(model: Any, folder: Path, options: EngineOptions, device: str = "cpu") -> TorchCudaEngine:
    """Compile and load one typed graph in an empty folder."""
    backend = TorchCudaBackend(device)
    (folder / "stage.onnx").write_bytes(model.SerializeToString())
    (folder / "artifact").mkdir()
    backend.compile(folder / "stage.onnx", folder / "artifact", options)
    (folder / "stage.onnx").unlink()
    engine = backend.load(folder / "artifact", options)
    backend.check_precision(engine.precision_by_layer_type(), options.precision)
    return engine


class StagedPlan:
    """Engines bound to one tensor for each name, as the plan's buffers are."""

    def __init__(self, bundle: Bundle, precision: str, *, batch: int = 1, plan: str = "staged", device: str = "cpu"):
        self.batch = batch
        self._reference = bundle.read_asset("reference")
        self._folder = tempfile.TemporaryDirectory()
        self.engines: dict[str, TorchCudaEngine] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        for name, model in make_stages(bundle, plan).items():
            folder = Path(self._folder.name) / name
            folder.mkdir()
            options = EngineOptions(precision=precision, batch=batch)
            engine = load_engine(make_typed(model, precision), folder, options, device)
            self.engines[name] = engine
            for spec in (*engine.inputs.values(), *engine.outputs.values()):
                if spec.name not in self.buffers:
                    dtype = getattr(torch, spec.dtype)
                    self.buffers[spec.name] = torch.full(spec.with_batch(batch), torch.nan, dtype=dtype, device=device)
        pointers = {name: tensor.data_ptr() for name, tensor in self.buffers.items()}
        for engine in self.engines.values():
            engine.bind(pointers)

    def __enter__(self) -> "StagedPlan":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for engine in self.engines.values():
            engine.close()
        self._folder.cleanup()

    def run(self, image: np.ndarray, stream: int = 0) -> Mapping[str, np.ndarray]:
        """Run images [batch, 3, h, w]; return every tensor as float32, `map` and `score` among them."""
        self.write("image", image)
        for engine in self.engines.values():
            for name in engine.inputs:
                if name.startswith("r") and "k" in name:
                    level, size = name[1:].split("k")
                    self.write(name, self._repair(f"f{level}", int(size)))
            engine.enqueue(stream)
        tensors = {name: self.read(name) for name in self.buffers}
        fused = fuse_maps([tensors[name] for name in LEVEL_MAPS]).astype(np.float32)
        smoothed = np.empty_like(fused)
        smooth(fused, smoothed, np.empty(fused.shape[2:], np.float32))
        return {**tensors, "map": fused, "score": score(smoothed)}

    def write(self, name: str, values: np.ndarray) -> None:
        self.buffers[name].copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def read(self, name: str) -> np.ndarray:
        return np.asarray(self.buffers[name].float().cpu().numpy()).copy()

    def _repair(self, name: str, size: int) -> np.ndarray:
        dtype = str(self.buffers[name].dtype).removeprefix("torch.")
        stored = widen(narrow(self._reference[name], dtype), dtype)  # the plan holds it in the border's type
        features = self.read(name)
        out = np.empty_like(features)
        rbfrm = RbfrmHost(features.shape[1:], stored.shape, size)
        rbfrm.run(rbfrm.prepare([stored]), [features], [out])
        return out

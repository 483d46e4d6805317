"""The TensorRT-RTX backend: compiles typed stages for RTX GPUs on any machine, and loads them."""

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.devices import machine
from ndp_rt.engines.backend import DeviceBackend, EngineOptions
from ndp_rt.engines.backends.tensorrt.layers import WANTED, check_products
from ndp_rt.engines.backends.tensorrt.logger import keep_log
from ndp_rt.engines.backends.tensorrt_rtx.build import LAYERS, build_for, find_plan, group_targets, name_plan
from ndp_rt.engines.backends.tensorrt_rtx.engine import TensorRtRtxEngine
from ndp_rt.engines.backends.tensorrt_rtx.library import DISTRIBUTIONS, REMEDY, import_tensorrt_rtx
from ndp_rt.engines.backends.tensorrt_rtx.options import (
    TARGETS,
    TensorRtRtxOptions,
    check_targets,
    describe_targets,
    find_targets,
    name_target,
)
from ndp_rt.errors import DeviceError, EngineError

if TYPE_CHECKING:
    from ndp_rt.engines.cache import EngineKey
    from ndp_rt.engines.engine import DeviceEngine

LOG_FILE = "build.log"


class TensorRtRtxBackend(DeviceBackend):
    """See `ndp_rt.engines.backend.DeviceBackend`."""

    name = "tensorrt-rtx"
    order = 15
    is_portable = True
    build_options = TensorRtRtxOptions
    distributions = DISTRIBUTIONS
    remedy = REMEDY
    precisions = tuple(WANTED)

    def find_devices(self) -> tuple[str, ...]:
        return tuple(gpu.name for gpu in machine.find_gpus() if name_target(gpu.compute_capability) in TARGETS)

    def describe_device(self, index: int) -> Mapping[str, Any]:
        return describe_targets((_find_target(index),))

    def find_free_fields(self, made: "EngineKey", wanted: "EngineKey") -> frozenset[str]:
        is_for_it = set(wanted.compute_capability.split()) <= set(made.compute_capability.split())
        return frozenset({"compute_capability"} if is_for_it else ())

    def runs_here(self, options: EngineOptions) -> bool:
        gpus, targets = machine.find_gpus(), find_targets(options)
        return not targets or (
            options.device_index < len(gpus) and name_target(gpus[options.device_index].compute_capability) in targets
        )

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        self.check_offered(options.precision)
        lib = import_tensorrt_rtx()
        targets = find_targets(options) or (_find_target(options.device_index),)
        check_targets(targets, options.precision)
        notes: dict[str, Any] = {"log": LOG_FILE, "plans": {}}
        with keep_log(lib, artifact / LOG_FILE, _is_kept):
            for group in group_targets(targets):
                start = time.perf_counter()
                built, counts = build_for(lib, onnx_path, options, group)
                (artifact / name_plan(group)).write_bytes(built.content)
                notes["plans"][name_plan(group)] = {
                    "bytes": len(built.content),
                    "build_s": round(time.perf_counter() - start, 2),
                    "precision_by_layer_type": counts,
                }
        return notes | {"precision_by_layer_type": counts}

    def load(self, artifact: Path, options: EngineOptions) -> TensorRtRtxEngine:
        lib = import_tensorrt_rtx()
        target = _find_target(options.device_index)
        path = find_plan(artifact, target)
        gpu = machine.find_gpu(options.device_index)
        if path is None:
            raise EngineError(
                f"{artifact}: expected an engine for {target}, which {gpu.name} is, got one for other GPUs; it is not "
                f"used. Build with --for {target}."
            )
        words = re.sub(r"[^\w.]+", "-", f"{artifact.name}-{gpu.name}-{machine.find_driver_version()}")
        return TensorRtRtxEngine(lib, path, options.batch, artifact.with_name(f"{words}.runtime-cache"))

    def keep(self, engines: Iterable["DeviceEngine"]) -> None:
        for engine in engines:
            if isinstance(engine, TensorRtRtxEngine):
                engine.keep()

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        check_products(counts, precision, import_tensorrt_rtx(), "TensorRT-RTX's engine")


def _is_kept(severity: str, message: str) -> bool:
    return severity != "VERBOSE" or message.startswith(LAYERS)


def _find_target(index: int) -> str:
    """Return the generation of a GPU of this machine.

    Raises:
        DeviceError: there is no such GPU, or TensorRT-RTX has no engines for it.
    """
    try:
        gpu = machine.find_gpu(index)
    except DeviceError as error:
        raise DeviceError(f"{error} To build for GPUs that are elsewhere, say which: --for sm86,sm89.") from error
    target = name_target(gpu.compute_capability)
    if target not in TARGETS:
        raise DeviceError(
            f"device: expected a GPU of {', '.join(TARGETS)} for --backend tensorrt-rtx, got {gpu.name} ({target}). "
            "Use --backend tensorrt."
        )
    return target

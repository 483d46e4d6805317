"""The TensorRT backend: compiles typed stages into plans, and loads them."""

import dataclasses
import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backend import BuildOptions, DeviceBackend, EngineOptions
from ndp_rt.engines.backends.tensorrt.adapter import make_runtime, refit
from ndp_rt.engines.backends.tensorrt.engine import TensorRtEngine
from ndp_rt.engines.backends.tensorrt.layers import WANTED, check_products, compare_products, sum_products
from ndp_rt.engines.backends.tensorrt.library import DISTRIBUTIONS, REMEDY, import_tensorrt
from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log, keep_log
from ndp_rt.engines.backends.tensorrt.options import (
    HARDWARE_COMPATIBLE,
    VERSION_COMPATIBLE,
    TensorRtOptions,
    find_build,
)
from ndp_rt.engines.backends.tensorrt.plan_build import BuiltPlan, build_plan
from ndp_rt.engines.backends.tensorrt.plan_manifest import (
    LOG_FILE,
    MANIFEST_FILE,
    PLAN_FILE,
    Machine,
    PlanManifest,
    find_machine,
)
from ndp_rt.errors import EngineError
from ndp_rt.files import hash_file

if TYPE_CHECKING:
    import tensorrt as trt

    from ndp_rt.engines.cache import EngineKey

AMPERE = (8, 0)


class TensorRtBackend(DeviceBackend):
    """See `ndp_rt.engines.backend.DeviceBackend`."""

    name = "tensorrt"
    order = 10
    build_options = TensorRtOptions
    distributions = DISTRIBUTIONS
    remedy = REMEDY
    precisions = tuple(WANTED)

    def compile(self, onnx_path: Path, artifact: Path, options: EngineOptions) -> Mapping[str, Any]:
        self.check_offered(options.precision)
        lib = import_tensorrt()
        machine = find_machine(lib, options.device_index)
        start = time.perf_counter()
        with keep_log(lib, artifact / LOG_FILE):
            built = build_plan(lib, onnx_path, options)
        (artifact / PLAN_FILE).write_bytes(built.content)
        describe_plan(built, onnx_path, options, machine).write(artifact)
        return {
            "log": LOG_FILE,
            "build_s": round(time.perf_counter() - start, 1),
            "plan_bytes": len(built.content),
            "products_in_network": dict(built.products),
            "machine": vars(machine),
        }

    def load(self, artifact: Path, options: EngineOptions) -> TensorRtEngine:
        lib = import_tensorrt()
        here = find_machine(lib, options.device_index)
        manifest = PlanManifest.read(artifact)
        different = manifest.find_differences(here)
        if different:
            raise EngineError(f"{artifact}: the engine was built for {', '.join(different)}; it is not used.")
        engine = load_plan(lib, artifact / PLAN_FILE, manifest)
        try:
            if (engine.inputs, engine.outputs) != (manifest.inputs, manifest.outputs):
                raise EngineError(f"{artifact}: the engine's tensors are not those that {MANIFEST_FILE} tells of.")
            products = sum_products(engine.precision_by_layer_type())
            if products:
                compare_products(products, manifest.products, manifest.precision, lib)
        except BaseException:
            engine.close()
            raise
        return engine

    def check_precision(self, counts: Mapping[str, Mapping[str, int]], precision: str) -> None:
        check_products(counts, precision, import_tensorrt(), "TensorRT's engine")

    def choose_build(self, build: BuildOptions | None, key: "EngineKey", engines_dir: Path) -> TensorRtOptions:
        chosen = build if isinstance(build, TensorRtOptions) else TensorRtOptions()
        if chosen.timing_cache is not None:
            return chosen
        name = re.sub(r"[^\w.]+", "-", f"timing-{key.backend}-{key.backend_version}-{key.device_model}.cache")
        return dataclasses.replace(chosen, timing_cache=str(engines_dir / name))

    def find_free_fields(self, made: "EngineKey", wanted: "EngineKey") -> frozenset[str]:
        free: set[str] = set()
        is_older = _numbers(made.backend_version) <= _numbers(wanted.backend_version)
        if VERSION_COMPATIBLE in made.build_options and is_older:
            free |= {"backend_version", "driver_version"}
        if HARDWARE_COMPATIBLE in made.build_options and _numbers(wanted.compute_capability) >= AMPERE:
            free |= {"device_model", "compute_capability", "driver_version"}
        return frozenset(free)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(".") if word.isdecimal())


def describe_plan(built: BuiltPlan, onnx_path: Path, options: EngineOptions, machine: Machine) -> PlanManifest:
    """Return what is to lie beside a plan."""
    return PlanManifest(
        machine=machine,
        precision=options.precision,
        batch=options.batch,
        traits=find_build(options).traits,
        onnx_sha256=hash_file(onnx_path),
        onnx_path=str(onnx_path.absolute()) if find_build(options).strip else None,
        plan_sha256=hashlib.sha256(built.content).hexdigest(),
        plan_bytes=len(built.content),
        inputs=built.inputs,
        outputs=built.outputs,
        products=built.products,
    )


def load_plan(lib: Any, path: Path, manifest: PlanManifest) -> TensorRtEngine:
    """Load a plan onto the thread's current GPU.

    Raises:
        EngineError: it is missing, cut short, or refused by TensorRT; or its weights are not where they were.
        DeviceError: no GPU, a driver that is too old, or no room.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: the engine cannot be read ({error.strerror}).") from error
    if len(content) != manifest.plan_bytes:
        raise EngineError(f"{path}: the engine has {len(content)} bytes, {manifest.plan_bytes} were written.")
    runtime: trt.Runtime = make_runtime(lib, allow_host_code=VERSION_COMPATIBLE in manifest.traits)
    before = get_log(lib).error_count
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(f"{path}: TensorRT refuses the engine: {describe_errors(lib, before)}.")
    weight_bytes = len(content)
    if manifest.onnx_path is not None:
        onnx_path = Path(manifest.onnx_path)
        if not onnx_path.is_file() or hash_file(onnx_path) != manifest.onnx_sha256:
            raise EngineError(f"{path}: the engine's weights lie in {onnx_path}, which is missing or was changed.")
        refit(lib, engine, onnx_path)
        weight_bytes += onnx_path.stat().st_size
    return TensorRtEngine(lib, runtime, engine, manifest.batch, weight_bytes, _make_context)


def _make_context(engine: "trt.ICudaEngine") -> "trt.IExecutionContext | None":
    return engine.create_execution_context()

"""Builds a plan from a typed ONNX file."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.backends.tensorrt.adapter import (
    check_offered,
    leave_out_missing_libraries,
    make_builder,
    set_compatibility,
    set_precision,
    watch,
)
from ndp_rt.engines.backends.tensorrt.layers import check_products, sum_products
from ndp_rt.engines.backends.tensorrt.library import describe
from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log, listen
from ndp_rt.engines.backends.tensorrt.network import ParsedNetwork
from ndp_rt.engines.backends.tensorrt.options import find_build
from ndp_rt.engines.backends.tensorrt.progress import BuildProgress
from ndp_rt.engines.backends.tensorrt.timing_cache import TimingCache
from ndp_rt.errors import EngineError
from ndp_rt.program.tensors import TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """A serialised engine and what is known of it."""

    content: bytes
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    products: Mapping[str, int]  # the network's layers that multiply, by type


def build_plan(lib: Any, onnx_path: Path, options: EngineOptions) -> BuiltPlan:
    """Build a plan on the thread's current GPU; TensorRT's log goes to whoever listens.

    Raises:
        DeviceError: no GPU, or a driver that is too old.
        EngineError: the file cannot be read, is not of the precision asked for, or cannot be built.
        InputError: an option that this TensorRT does not have.
        StorageError: the timing cache cannot be written.
    """
    build = find_build(options)
    check_offered(lib, options.precision, build)
    cache = TimingCache(None if build.timing_cache is None else Path(build.timing_cache).absolute())

    def configure(config: "trt.IBuilderConfig") -> None:
        if build.workspace_bytes is not None:
            config.set_memory_pool_limit(lib.MemoryPoolType.WORKSPACE, build.workspace_bytes)
        leave_out_missing_libraries(lib, config)
        set_compatibility(lib, config, build)
        cache.attach(lib, config, options.tell)

    return build_network(lib, onnx_path, options, configure, cache.save)


def build_network(
    lib: Any,
    onnx_path: Path,
    options: EngineOptions,
    configure: "Callable[[trt.IBuilderConfig], None]",
    finish: "Callable[[trt.IBuilderConfig], None]" = lambda config: None,
) -> BuiltPlan:
    """Build a typed ONNX file for one batch size with TensorRT or TensorRT-RTX.

    Args:
        lib: the library's module.
        onnx_path: the file, weights inside.
        options: precision and batch, and who is told of the progress.
        configure: sets what else the build needs.
        finish: is given the configuration of a build that succeeded.

    Raises:
        DeviceError, EngineError: as `build_plan`.
    """
    builder: trt.Builder = make_builder(lib)
    parsed = ParsedNetwork(lib, builder, onnx_path)
    network: trt.INetworkDefinition = parsed.network
    counts = parsed.count_products()
    # TF32 and float32 are one type in a graph.
    precision = "fp32" if options.precision == "tf32" else options.precision
    check_products(counts, precision, lib, f"the graph {onnx_path}")
    inputs, outputs = parsed.describe(options.batch)
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.profiling_verbosity = lib.ProfilingVerbosity.DETAILED
    set_precision(lib, config, network, options.precision)
    parsed.fix_batch(builder, config, options.batch)
    configure(config)
    progress = BuildProgress(options.tell)
    monitor = watch(lib, config, progress)
    before = get_log(lib).error_count
    with listen(lib, progress.take_line) if monitor is None else contextlib.nullcontext():
        plan: trt.IHostMemory | None = builder.build_serialized_network(network, config)
    del monitor  # it had to live until here
    if plan is None:
        raise _explain_failure(lib, onnx_path, options, before)
    finish(config)
    return BuiltPlan(
        content=bytes(plan),
        inputs=inputs,
        outputs=outputs,
        products=sum_products(counts),
    )


def _explain_failure(lib: Any, onnx_path: Path, options: EngineOptions, error_count_before: int) -> EngineError:
    reason = describe_errors(lib, error_count_before)
    if "builder_resource" in reason:
        advice = "The library libnvinfer_builder_resource is part of TensorRT: install all of it."
    elif find_build(options).workspace_bytes is not None:
        advice = "Build with a larger --workspace, or smaller batches."
    else:
        advice = "Build smaller batches, or another precision."
    return EngineError(
        f"{describe(lib)} cannot build {onnx_path} in {options.precision}, batch {options.batch}: {reason}. {advice}"
    )

"""What is measured beside the contenders, in a process without one: ceilings, the work of a graph, profiles."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ndp_rt.bench.ceiling import measure_copy_gbyte_per_s, measure_device_ceiling, measure_host_ceiling
from ndp_rt.bench.contenders.spec import ContenderSpec
from ndp_rt.bench.flops import count_file
from ndp_rt.bench.stage_split import split_stages
from ndp_rt.bundle.open import open_bundle
from ndp_rt.devices.cuda.driver import CudaDevice, parse_device
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.registry import find_backend, find_device_backend, find_host_backend, list_backends
from ndp_rt.graphs.quantised import prepare_graph
from ndp_rt.program.manifest import INT8_PRECISIONS

TORCH = "torch"
FAMILIES = {"pytorch": TORCH, "torch-compile": TORCH, "torch-compile-autotuned": TORCH, "tensorrt-fused": "tensorrt"}


def find_family(spec: ContenderSpec) -> str | None:
    """Return whose matrix product is a contender's ceiling: a backend, TORCH, or None where none is known."""
    if spec.backend is not None:
        return spec.backend
    if spec.kind == "other network":
        return None if spec.word.endswith(".onnx") else {"pytorch": TORCH}.get(spec.models_on, spec.models_on)
    return {**FAMILIES, "onnxruntime": "onnxruntime", "openvino-plain": "openvino"}.get(spec.word)


def measure_ceiling(family: str, precision: str, threads: int | None, device: str) -> dict[str, Any]:
    """Return what a matrix product reaches through a family of `find_family`: gflop_per_s, size, note."""
    if family == TORCH:
        from ndp_rt.bench.peers.torch_ceiling import measure_torch_ceiling

        return asdict(measure_torch_ceiling(precision, threads, "cpu" if device == "cpu" else "cuda"))
    if family in list_backends("cpu"):
        return asdict(measure_host_ceiling(find_host_backend(family), precision, threads))
    one = CudaDevice(parse_device(device))
    one.activate()
    return asdict(measure_device_ceiling(find_device_backend(family), one, precision))


def measure_copy(threads: int) -> float:
    """Return what copying reaches, in 10^9 bytes read and written a second."""
    return measure_copy_gbyte_per_s(threads)


def count_work(bundle: str, precision: str, batch: int) -> dict[str, float]:
    """Return an image's gflop and megabytes in a bundle's fused graph."""
    work = count_file(open_bundle(bundle).stage_path("fused"), batch=batch, precision=precision)
    return {"gflop": work.gflop_per_image, "megabytes": work.megabytes_per_image}


def split_host_stages(spec: ContenderSpec, batch: int, parts_ms: Mapping[str, float]) -> tuple[dict[str, float], str]:
    """Return how the time of a contender of ours on a CPU splits over its stages, and how that was measured."""
    backend: Any = find_backend(spec.backend or "")
    options = EngineOptions(precision=spec.precision, batch=batch, threads=spec.threads)
    bundle = open_bundle(spec.bundle)
    graph, profiler = bundle.stage_path("fused"), backend if hasattr(backend, "profile") else None
    if spec.precision not in INT8_PRECISIONS or spec.plan != "fused":
        return split_stages(parts_ms, graph, profiler, options)
    with TemporaryDirectory(prefix="ndp-rt-split-") as folder:
        quantised = prepare_graph(bundle, graph, spec.precision, Path(folder))
        return split_stages(parts_ms, graph, profiler, options, quantised)
